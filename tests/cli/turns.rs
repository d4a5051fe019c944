//! Connections that are cut at one request, or at its answer.
//!
//! Knows no protocol. A turn is what a client says once its server has spoken, and what the server answers: of HTTP a request, also the rest
//! of one that the server has let through; of what is encrypted some message.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where in a turn its connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before the server has heard of it.
    Request,
    /// When the server has done it, and the client has not heard of that.
    Answer,
    /// In the middle of the answer, or of its first 64 KiB.
    HalfAnswer,
}

/// Which turns are cut.
#[derive(Debug, Clone, Copy)]
pub struct Cuts {
    pub cut: Cut,
    /// The first one, from 1, of all connections together.
    pub from: usize,
    /// Whether it is all of them from then on; else that one.
    pub is_lasting: bool,
}

/// Passes connections on to a server, and cuts some.
pub struct Turns {
    port: u16,
    state: Arc<State>,
}

struct State {
    cuts: Cuts,
    count: AtomicUsize,
    cut: AtomicUsize,
}

/// A connection.
struct Talk {
    state: Arc<State>,
    /// Whether the server has spoken since the client has, and whether the turn is one to be cut.
    turn: Mutex<(bool, bool)>,
    client: TcpStream,
    server: TcpStream,
}

impl Turns {
    /// Before the server of this address: a host and its port.
    pub fn start(server: &str, cuts: Cuts) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let state = State { cuts, count: AtomicUsize::new(0), cut: AtomicUsize::new(0) };
        let (state, server) = (Arc::new(state), server.to_owned());
        let state_of_thread = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (state, turn) = (Arc::clone(&state_of_thread), Mutex::new((true, false)));
                let talk = Arc::new(Talk { state, turn, client, server });
                let other_way = Arc::clone(&talk);
                std::thread::spawn(move || talk.pass_requests_on());
                std::thread::spawn(move || other_way.pass_answers_on());
            }
        });
        Self { port, state }
    }

    /// Where it listens: a host and its port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many turns were cut.
    pub fn cut(&self) -> usize {
        self.state.cut.load(Ordering::Relaxed)
    }
}

impl State {
    /// Whether the turn that begins now is cut.
    fn begin_turn(&self) -> bool {
        let turn = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let Cuts { from, is_lasting, .. } = self.cuts;
        let is_cut = turn == from || is_lasting && turn > from;
        self.cut.fetch_add(usize::from(is_cut), Ordering::Relaxed);
        is_cut
    }
}

impl Talk {
    fn turn(&self) -> MutexGuard<'_, (bool, bool)> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_requests_on(&self) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = (&self.client).read(&mut buffer) {
            let mut turn = self.turn();
            if std::mem::take(&mut turn.0) {
                turn.1 = self.state.begin_turn();
            }
            let is_cut = turn.1 && self.state.cuts.cut == Cut::Request;
            drop(turn);
            if is_cut || (&self.server).write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        self.end();
    }

    fn pass_answers_on(&self) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(mut count @ 1..) = (&self.server).read(&mut buffer) {
            let mut turn = self.turn();
            turn.0 = true;
            let cut = turn.1.then_some(self.state.cuts.cut);
            drop(turn);
            if cut == Some(Cut::HalfAnswer) {
                count = self.rest_of_answer(&mut buffer, count) / 2;
            }
            if cut.is_none_or(|cut| cut == Cut::HalfAnswer) {
                let _ = (&self.client).write_all(&buffer[..count]);
            }
            if cut.is_some() {
                break;
            }
        }
        self.end();
    }

    /// Waits for more of an answer, of which so much is there, until no more comes.
    fn rest_of_answer(&self, buffer: &mut [u8], mut count: usize) -> usize {
        const QUIET: Duration = Duration::from_millis(20);
        let _ = self.server.set_read_timeout(Some(QUIET));
        while count < buffer.len() {
            match (&self.server).read(&mut buffer[count..]) {
                Ok(more @ 1..) => count += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        count
    }

    fn end(&self) {
        let _ = (self.client.shutdown(Shutdown::Both), self.server.shutdown(Shutdown::Both));
    }
}
