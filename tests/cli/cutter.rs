//! Connections that are counted, and cut in the middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// Passes connections on to the server. After so many bytes to one side or the other, it cuts all of them, once.
pub struct Cutter {
    port: u16,
    pub left: Arc<AtomicI64>,
    pub connections: Arc<AtomicUsize>,
}

impl Cutter {
    /// Before the server of this address.
    pub fn start(server: &str, bytes: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (left, connections) = (Arc::new(AtomicI64::new(bytes)), Arc::new(AtomicUsize::new(0)));
        let server = server.trim_start_matches("http://").to_owned();
        let (left_of_thread, connections_of_thread) = (Arc::clone(&left), Arc::clone(&connections));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                connections_of_thread.fetch_add(1, Ordering::Relaxed);
                // With no bytes to pass on, there is no server.
                if bytes == 0 {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let pairs = [(&client, &server), (&server, &client)];
                for (from, to) in pairs {
                    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                    let (from, to, left) = (clone(from), clone(to), Arc::clone(&left_of_thread));
                    std::thread::spawn(move || pass_on(from, to, &left));
                }
            }
        });
        Self { port, left, connections }
    }

    /// How many bytes were passed on, to both sides.
    pub fn passed(&self) -> i64 {
        i64::MAX - self.left.load(Ordering::Relaxed)
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, left: &AtomicI64) {
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let before = left.fetch_sub(count as i64, Ordering::Relaxed);
        let is_the_cut = before >= 0 && before < count as i64;
        if is_the_cut || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
