//! `https://host/path`: a folder of a server on the web. Every server that sends files can be read; one that takes them by WebDAV, or
//! by PUT alone, can be written.
//!
//! Where the server moves files, a content is sent under a name of its own and gets the final one in one step, unless something has
//! it. Where it does not, the server alone decides whether somebody sees half a file; whoever reads checks every byte.

mod client;

use std::collections::HashSet;
use std::io::{BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pipeline_stages::url::WebUrl;
use ureq::http::HeaderValue;

use super::http::{Answer, Headers, SHORT_ANSWER, Server, if_new, longest, longest_copy};
use super::name::{Name, RECORDS, new_name};
use super::transport::{Content, ContentTotals, Download, Put, Remote, RemoteFailure, in_part};
use crate::remote_address::WebAddress;
use client::Client;

/// A server may say that it does not take a content before one with more bytes is sent.
const ANNOUNCED_FROM: u64 = 1 << 20;

/// A folder of a server on the web.
pub(super) struct Web {
    client: Client,
    /// Whether the server moves files, once that is known.
    moves: Mutex<Option<bool>>,
    /// Whether it takes a whole address alone for the new name of a file, once one was refused.
    whole_address: AtomicBool,
    /// The folders that were made, or were there.
    folders: Mutex<HashSet<String>>,
}

impl Web {
    /// The folder of an address, with the logins of this user. No connection is made yet.
    pub(super) fn new(address: WebAddress) -> Self {
        Self {
            client: Client::new(address),
            moves: Mutex::default(),
            whole_address: AtomicBool::new(false),
            folders: Mutex::default(),
        }
    }

    fn url(&self, name: &str) -> Result<WebUrl, RemoteFailure> {
        let url = WebUrl::read(&format!("{}/{name}", self.client.folder()));
        url.map_err(|reason| {
            RemoteFailure::away(format!("the address cannot be used: {reason}")).lasting()
        })
    }

    fn known_moves(&self) -> std::sync::MutexGuard<'_, Option<bool>> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server moves files: asked with one that does not exist.
    fn moves_files(&self) -> Result<bool, RemoteFailure> {
        let mut known = self.known_moves();
        if let Some(known) = *known {
            return Ok(known);
        }
        let (from, to) = (self.url(&new_name())?, self.url(&new_name())?);
        let status = self.move_file(&from, &to, SHORT_ANSWER)?;
        // It may say that nobody may do it: then it says it again of one that exists.
        Ok(*known.insert(!does_not_know(status)))
    }

    /// Gives a file another name, unless something has that. Returns the status of the answer.
    fn move_file(
        &self,
        from: &WebUrl,
        to: &WebUrl,
        longest: Duration,
    ) -> Result<u16, RemoteFailure> {
        let ask = |to: &str| {
            let to = HeaderValue::try_from(to)
                .map_err(|_| RemoteFailure::away("the address cannot be in a header"))?;
            let headers = [("destination", to), ("overwrite", HeaderValue::from_static("F"))];
            Ok(self.write("MOVE", from, longest, &headers)?.status())
        };
        if !self.whole_address.load(Ordering::Relaxed) {
            // A path alone: behind a proxy, a server has another name than the one that it is asked by.
            let status = ask(to.target())?;
            // Apache refuses that, and so do others that read RFC 2518.
            if status != 400 {
                return Ok(status);
            }
            self.whole_address.store(true, Ordering::Relaxed);
        }
        ask(&to.to_string())
    }

    fn write(
        &self,
        method: &str,
        url: &WebUrl,
        longest: Duration,
        headers: Headers<'_>,
    ) -> Result<Answer, RemoteFailure> {
        let ask = |server: &Server, url: &str, headers: Headers<'_>| {
            server.ask(method, url, longest, headers)
        };
        self.client.write(url, headers, ask)
    }

    fn put_as(
        &self,
        url: &WebUrl,
        content: &Content<'_>,
        headers: Headers<'_>,
    ) -> Result<u16, RemoteFailure> {
        let mut headers = headers.to_vec();
        if content.bytes() > ANNOUNCED_FROM {
            headers.push(("expect", HeaderValue::from_static("100-continue")));
        }
        let answer = self.client.write(url, &headers, |server, url, headers| {
            server.put(url, content.reader(), content.bytes(), headers)
        });
        Ok(answer?.status())
    }

    /// Makes the folders of a name, once in a process: not every server does. Returns whether the top exists, as far as that is
    /// said. It is not made: it may be a mistake.
    fn make_folders(&self, name: &str) -> Result<bool, RemoteFailure> {
        // What has no folder of its own is put first: the folder of records shows whether there is a top.
        let folder = name.rsplit_once('/').map_or(RECORDS, |(folder, _)| folder);
        let folder = format!("{folder}/");
        let mut made = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        for (end, _) in folder.match_indices('/') {
            let folder = &folder[..=end];
            if made.contains(folder) {
                continue;
            }
            match self.write("MKCOL", &self.url(folder)?, SHORT_ANSWER, &[])?.status() {
                409 => return Ok(false),
                // It is made, or there, or the server makes none.
                200..=299 | 400 | 405 | 501 => drop(made.insert(folder.to_owned())),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Sends a content under another name, and gives it its own. `None` where the server does not move files.
    fn put_and_move(
        &self,
        name: &Name,
        content: &Content<'_>,
    ) -> Result<Option<Put>, RemoteFailure> {
        let folder =
            name.as_str().rsplit_once('/').map_or(String::new(), |(it, _)| format!("{it}/"));
        let new = format!("{folder}{}", new_name());
        let url = self.url(&new)?;
        let has_top = self.make_folders(name.as_str())?;
        let put = match self.put_as(&url, content, &[]) {
            // A server that has no folder for it may close the connection before it has read it.
            Err(_) if !has_top => Err(self.refusal(409, content)),
            Err(failure) => Err(failure),
            Ok(200..=299) => self.move_new(&url, name, content),
            Ok(status) => Err(self.refusal(status, content)),
        };
        if put != Ok(Some(Put::New)) {
            let _ = self.write("DELETE", &url, SHORT_ANSWER, &[]);
        }
        put
    }

    /// Gives what was sent its name. `None` where the server does not move files.
    fn move_new(
        &self,
        new: &WebUrl,
        name: &Name,
        content: &Content<'_>,
    ) -> Result<Option<Put>, RemoteFailure> {
        let longest = longest_copy(content.bytes());
        match self.move_file(new, &self.url(name.as_str())?, longest)? {
            200..=299 => Ok(Some(Put::New)),
            412 => self.existing(name, content, 412).map(Some),
            // It was moved, and the answer was lost.
            404 if self.size(name)? == Some(content.bytes()) => Ok(Some(Put::New)),
            403 => Ok(None),
            status if does_not_know(status) => Ok(None),
            status => Err(self.refusal(status, content)),
        }
    }

    /// What it means that a server says that a name has a content. Where it writes a file in place, or copies it to give it its
    /// name, that can be half of this one: of a request that broke off and was tried again, or of somebody else who sends the same.
    fn existing(
        &self,
        name: &Name,
        content: &Content<'_>,
        status: u16,
    ) -> Result<Put, RemoteFailure> {
        let Some(bytes) = self.size(name)? else { return Err(self.refusal(status, content)) };
        if bytes < content.bytes() && self.begins_with(name, content, bytes)? {
            return Err(in_part(name));
        }
        Ok(Put::Existed)
    }

    /// Whether the first bytes of a content are those of a name.
    fn begins_with(
        &self,
        name: &Name,
        content: &Content<'_>,
        bytes: u64,
    ) -> Result<bool, RemoteFailure> {
        let Some(there) = Download::open(self, name.clone(), bytes)? else { return Ok(false) };
        let (mut there, here) = (BufReader::new(there), BufReader::new(content.part(0, bytes)));
        let mut pairs = there.by_ref().bytes().zip(here.bytes());
        let is_same = pairs.all(|pair| matches!(pair, (Ok(there), Ok(here)) if there == here));
        there.into_inner().failure.map_or(Ok(is_same), Err)
    }

    fn put_at_once(&self, name: &Name, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        if self.size(name)?.is_some() {
            return self.existing(name, content, 412);
        }
        let url = self.url(name.as_str())?;
        let put = || self.put_as(&url, content, &[if_new()]);
        let mut status = put()?;
        // Not every server makes folders.
        if status == 409 && self.make_folders(name.as_str())? {
            status = put()?;
        }
        match status {
            200..=299 => Ok(Put::New),
            412 => self.existing(name, content, 412),
            status => Err(self.refusal(status, content)),
        }
    }

    /// What it means that a content was not taken.
    fn refusal(&self, status: u16, content: &Content<'_>) -> RemoteFailure {
        let folder = self.client.folder();
        let away = |what: &str| RemoteFailure::away(format!("{what} (status {status}; {folder})"));
        match status {
            403 => self.client.denied(status, "nothing may be written there"),
            404 | 409 => away("the folder does not exist: make it if it is a new one"),
            413 => RemoteFailure::refused(format!(
                "the server does not take a file of {} bytes (status {status}; {folder}): nginx's client_max_body_size says how \
                 many it takes",
                content.bytes()
            )),
            507 => away("there is no room left"),
            status if does_not_know(status) => {
                away("the server takes no files: it can only be read").lasting()
            }
            _ => {
                RemoteFailure::refused(format!("the server refused it (status {status}; {folder})"))
            }
        }
    }
}

/// Whether a server does not know what it is asked to do.
fn does_not_know(status: u16) -> bool {
    matches!(status, 400 | 405 | 501)
}

impl Remote for Web {
    fn get(
        &self,
        name: &Name,
        from: u64,
        expected: u64,
    ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
        let url = self.url(name.as_str())?;
        let answer = self.client.read(&url, &[416], |server, url, headers| {
            server.get(url, from, longest(expected), headers)
        })?;
        match answer {
            // It ends where the reading broke off.
            Some(answer) if answer.status() == 416 && answer.whole() == Some(from) => {
                Ok(Some(Box::new(std::io::empty())))
            }
            Some(answer) if answer.status() == 416 => {
                Err(RemoteFailure::wrong(format!("{name} has fewer bytes than before")))
            }
            Some(answer) => answer.reader_from(from).map(Some),
            None => Ok(None),
        }
    }

    fn put(&self, name: &Name, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        if self.moves_files()? {
            if let Some(put) = self.put_and_move(name, content)? {
                return Ok(put);
            }
            *self.known_moves() = Some(false);
        }
        self.put_at_once(name, content)
    }

    fn size(&self, name: &Name) -> Result<Option<u64>, RemoteFailure> {
        let url = self.url(name.as_str())?;
        // What is sent to a GET is not read.
        for method in ["HEAD", "GET"] {
            let ask = |server: &Server, url: &str, headers: Headers<'_>| {
                server.ask(method, url, SHORT_ANSWER, headers)
            };
            let Some(answer) = self.client.read(&url, &[405, 501], ask)? else { return Ok(None) };
            if let (200..=299, Some(bytes)) = (answer.status(), answer.bytes()) {
                return Ok(Some(bytes));
            }
        }
        Err(RemoteFailure::refused(format!("the server does not say how many bytes {name} has")))
    }

    fn may_have_halves(&self) -> Result<bool, RemoteFailure> {
        Ok(!self.moves_files()?)
    }

    fn count(&self, _: &str) -> Result<ContentTotals, RemoteFailure> {
        Err(RemoteFailure::refused(
            "a server on the web has no list of its files: leave out --size".to_owned(),
        ))
    }
}
