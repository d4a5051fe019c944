//! `s3://bucket/prefix`: an object store that speaks the protocol of S3.
//!
//! A content gets its name by a conditional request, so that of several writers one wins; large ones are sent in parts, which
//! are continued where somebody was interrupted.

mod client;
mod credentials;
mod profile;
mod redacted;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use credentials::is_for_s3;

use std::io::Read;

use rusty_s3::S3Action;
use rusty_s3::actions::{
    CreateMultipartUpload, CreateMultipartUploadResponse, ListObjectsV2, ListPartsResponse,
};
use ureq::Body;
use ureq::http::Response;

use super::http::{SHORT_ANSWER, if_new, longest};
use super::name::Name;
use super::transport::{Content, ContentTotals, Put, Remote, RemoteFailure};
use crate::cache::on_threads;
use crate::remote_address::S3Address;
use client::{Client, Does, LONGEST_READ, MOST_ANSWER_BYTES, Sent};

/// A content with more bytes is sent in parts.
const PARTS_FROM: u64 = 32 << 20;

/// How many bytes a part has at least; all but the last one have the same number.
const PART_BYTES: u64 = 16 << 20;

/// The most parts that S3 takes, less some room.
const MOST_PARTS: u64 = 9_000;

/// How many parts are sent at once.
const MOST_AT_ONCE: usize = 4;

/// A bucket, or a part of one.
pub(super) struct S3 {
    client: Client,
    /// What all names begin with: empty, or with a slash at its end.
    prefix: String,
}

/// A part that is to be sent: its number, from 1, and where it is in the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PartPlace {
    number: u16,
    from: u64,
    bytes: u64,
}

/// The parts of a content of this size.
fn parts(bytes: u64) -> Vec<PartPlace> {
    let each = PART_BYTES.max(bytes.div_ceil(MOST_PARTS));
    let places = (0..bytes.div_ceil(each)).map(|index| PartPlace {
        number: index as u16 + 1,
        from: index * each,
        bytes: each.min(bytes - index * each),
    });
    places.collect()
}

impl S3 {
    /// The bucket of an address, with the credentials of this user. No connection is made yet.
    pub(super) fn new(address: &S3Address) -> Result<Self, RemoteFailure> {
        let prefix = match address.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self { client: Client::new(address)?, prefix })
    }

    fn key(&self, name: &Name) -> String {
        format!("{}{name}", self.prefix)
    }

    fn put_at_once(&self, key: &str, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        let sent = self.client.send(Does::Write, |client, credentials| {
            let mut action = client.bucket().put_object(credentials, key);
            action.headers_mut().insert("if-none-match", "*");
            let url = client.sign(&action);
            client.server().put(&url, content.reader(), content.bytes(), &[if_new()])
        })?;
        match sent {
            Sent::Done(_) => Ok(Put::New),
            Sent::Missing => Err(self.client.no_bucket()),
            Sent::Exists => Ok(Put::Existed),
            // A server without conditions: two that put at the same moment put the same bytes, or each a result of the same key.
            Sent::NoConditions => match self.size_of(key)? {
                Some(_) => Ok(Put::Existed),
                None => {
                    let sent = self.client.send(Does::Write, |client, credentials| {
                        let url = client.sign(&client.bucket().put_object(credentials, key));
                        client.server().put(&url, content.reader(), content.bytes(), &[])
                    })?;
                    if let Sent::Done(_) = sent {
                        Ok(Put::New)
                    } else {
                        Err(self.client.no_bucket())
                    }
                }
            },
        }
    }

    fn put_in_parts(&self, key: &str, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        let upload = match content.is_determined_by_its_name() {
            true => self.open_upload(key)?,
            false => None,
        };
        let (upload, done) = match upload {
            Some(upload) => {
                let done = self.parts_of(key, &upload)?;
                (upload, done)
            }
            None => (self.begin_upload(key)?, Vec::new()),
        };
        let parts = parts(content.bytes());
        let tags = on_threads(&parts, MOST_AT_ONCE, |part| {
            // Of another size, it is of another build.
            let sent = done
                .iter()
                .find(|(number, bytes, _)| *number == part.number && *bytes == part.bytes);
            match sent {
                Some((_, _, tag)) => Ok(tag.clone()),
                None => self.put_part(key, &upload, content, *part),
            }
        });
        let tags = tags.into_iter().collect::<Result<Vec<String>, RemoteFailure>>();
        let put = tags.and_then(|tags| self.complete(key, &upload, &tags));
        let is_continued = put.is_err() && content.is_determined_by_its_name();
        if put != Ok(Put::New) && !is_continued {
            self.abort(key, &upload);
        }
        put
    }

    /// Removes the parts of an upload that nobody completes: they take room, and are in no list of contents.
    fn abort(&self, key: &str, upload: &str) {
        // Where it fails, the rule of the bucket removes them.
        let _ = self.client.send(Does::Write, |client, credentials| {
            let action = client.bucket().abort_multipart_upload(credentials, key, upload);
            client.server().ask("DELETE", &client.sign(&action), SHORT_ANSWER, &[])
        });
    }

    /// An upload of this key that somebody began and did not complete.
    fn open_upload(&self, key: &str) -> Result<Option<String>, RemoteFailure> {
        let sent = self.client.send_for_text(Does::Write, |client, credentials| {
            let mut action = client.bucket().get_object(credentials, "");
            action.query_mut().insert("uploads", "");
            action.query_mut().insert("prefix", key);
            get_answer(client, &client.sign(&action))
        });
        // Not every server lists them: then it is sent from its beginning.
        let text = match sent {
            Ok(Sent::Done(text)) => text,
            Ok(_) => return Ok(None),
            Err(failure) if failure.is_of_one_request() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        Ok(upload_of(&text, key))
    }

    fn begin_upload(&self, key: &str) -> Result<String, RemoteFailure> {
        let sent = self.client.send_for_text(Does::Write, |client, credentials| {
            let action = client.bucket().create_multipart_upload(credentials, key);
            client.server().post(&client.sign(&action), "", &[])
        })?;
        let Sent::Done(text) = sent else { return Err(self.client.no_bucket()) };
        let created = CreateMultipartUpload::parse_response(&text);
        created
            .map(|created: CreateMultipartUploadResponse| created.upload_id().to_owned())
            .map_err(|_| {
                RemoteFailure::refused("the answer to the beginning of an upload cannot be read")
            })
    }

    /// The parts that were sent: number, bytes and tag.
    fn parts_of(&self, key: &str, upload: &str) -> Result<Vec<(u16, u64, String)>, RemoteFailure> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let sent = self.client.send_for_text(Does::Write, |client, credentials| {
                let mut action = client.bucket().list_parts(credentials, key, upload);
                if let Some(after) = after {
                    action.set_part_number_marker(after);
                }
                get_answer(client, &client.sign(&action))
            })?;
            let Sent::Done(text) = sent else { return Ok(Vec::new()) };
            let Ok(ListPartsResponse { parts, next_part_number_marker, .. }) =
                rusty_s3::actions::ListParts::parse_response(&text)
            else {
                return Ok(Vec::new());
            };
            found.extend(parts.into_iter().map(|part| (part.number, part.size, part.etag)));
            match next_part_number_marker.filter(|next| after.is_none_or(|after| *next > after)) {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }

    fn put_part(
        &self,
        key: &str,
        upload: &str,
        content: &Content<'_>,
        part: PartPlace,
    ) -> Result<String, RemoteFailure> {
        let PartPlace { number, from, bytes } = part;
        let sent = self.client.send(Does::Write, |client, credentials| {
            let action = client.bucket().upload_part(credentials, key, number, upload);
            client.server().put(&client.sign(&action), content.part(from, bytes), bytes, &[])
        })?;
        let tag = match sent {
            Sent::Done(answer) => answer.header("etag").map(str::to_owned),
            _ => None,
        };
        tag.ok_or_else(|| {
            RemoteFailure::refused("a part was not taken: somebody else has ended its upload")
        })
    }

    fn complete(&self, key: &str, upload: &str, tags: &[String]) -> Result<Put, RemoteFailure> {
        let complete = |is_conditional: bool| {
            self.client.send_for_text(Does::Write, |client, credentials| {
                let tags = tags.iter().map(String::as_str);
                let mut action =
                    client.bucket().complete_multipart_upload(credentials, key, upload, tags);
                if is_conditional {
                    action.headers_mut().insert("if-none-match", "*");
                }
                let url = client.sign(&action);
                let conditions = if is_conditional { &[if_new()][..] } else { &[] };
                client.server().post(&url, &action.body(), conditions)
            })
        };
        let text = match complete(true)? {
            Sent::Done(text) => text,
            Sent::Exists => return Ok(Put::Existed),
            Sent::Missing => {
                return Err(RemoteFailure::refused("somebody else has ended the upload"));
            }
            Sent::NoConditions => match complete(false)? {
                Sent::Done(text) => text,
                _ => return Err(RemoteFailure::refused("somebody else has ended the upload")),
            },
        };
        // An error can come with status 200 here.
        match client::error_of(&text) {
            None => Ok(Put::New),
            Some((code, _)) if code == "PreconditionFailed" => Ok(Put::Existed),
            Some((code, message)) => Err(RemoteFailure::refused(self.client.said(&code, &message))),
        }
    }

    fn size_of(&self, key: &str) -> Result<Option<u64>, RemoteFailure> {
        let sent = self.client.send(Does::Read, |client, credentials| {
            let url = client.sign(&client.bucket().head_object(credentials, key));
            client.server().ask("HEAD", &url, SHORT_ANSWER, &[])
        })?;
        Ok(match sent {
            Sent::Done(answer) => Some(answer.bytes().unwrap_or(0)),
            _ => None,
        })
    }
}

impl Remote for S3 {
    fn get(
        &self,
        name: &Name,
        from: u64,
        expected: u64,
    ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
        let key = self.key(name);
        let sent = self.client.send(Does::Read, |client, credentials| {
            let action = client.bucket().get_object(credentials, &key);
            let limit = longest(expected).min(LONGEST_READ);
            client.server().get(&client.sign(&action), from, limit, &[])
        })?;
        match sent {
            Sent::Done(answer) => answer.reader_from(from).map(Some),
            _ => Ok(None),
        }
    }

    fn put(&self, name: &Name, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        let key = self.key(name);
        let put = match content.bytes() > PARTS_FROM {
            true => self.put_in_parts(&key, content),
            false => self.put_at_once(&key, content),
        };
        // A server may refuse a second content before it has read it, and close the connection; or somebody else has completed
        // the same parts.
        put.or_else(|failure| match self.size_of(&key) {
            Ok(Some(_)) => Ok(Put::Existed),
            _ => Err(failure),
        })
    }

    fn size(&self, name: &Name) -> Result<Option<u64>, RemoteFailure> {
        self.size_of(&self.key(name))
    }

    fn count(&self, folder: &str) -> Result<ContentTotals, RemoteFailure> {
        let (mut totals, mut next) = (ContentTotals::default(), None::<String>);
        loop {
            let sent = self.client.send_for_text(Does::List, |client, credentials| {
                let mut action = client.bucket().list_objects_v2(credentials);
                action.with_prefix(format!("{}{folder}/", self.prefix));
                if let Some(next) = &next {
                    action.with_continuation_token(next.clone());
                }
                get_answer(client, &client.sign(&action))
            })?;
            let Sent::Done(text) = sent else { return Err(self.client.no_bucket()) };
            let listed = ListObjectsV2::parse_response(&text)
                .map_err(|_| RemoteFailure::refused("its list of contents cannot be read"))?;
            totals.count += listed.contents.len() as u64;
            // However much the server says.
            let sizes = listed.contents.iter().filter_map(|one| one.size);
            totals.bytes = sizes.fold(totals.bytes, u64::saturating_add);
            match listed.next_continuation_token.filter(|token| Some(token) != next.as_ref()) {
                Some(token) => next = Some(token),
                None => return Ok(totals),
            }
        }
    }
}

/// Asks for parts or names.
fn get_answer(client: &Client, url: &str) -> Result<Response<Body>, ureq::Error> {
    client.server().get(url, 0, longest(MOST_ANSWER_BYTES).min(LONGEST_READ), &[])
}

/// The last of the uploads of this key in a list of uploads.
fn upload_of(text: &str, key: &str) -> Option<String> {
    let between = |text: &str, tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
    };
    let uploads = text.split("<Upload>").skip(1);
    let uploads = uploads.filter(|upload| between(upload, "Key").as_deref() == Some(key));
    uploads.filter_map(|upload| between(upload, "UploadId")).last()
}

/// Whether a text is an answer of an object store. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_answer(text: &str) -> bool {
    let lists = [
        client::error_of(text).is_some(),
        upload_of(text, "a").is_some(),
        CreateMultipartUpload::parse_response(text).is_ok(),
        rusty_s3::actions::ListParts::parse_response(text).is_ok(),
        ListObjectsV2::parse_response(text).is_ok(),
    ];
    lists.contains(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_of_the_content() {
        for bytes in [PARTS_FROM + 1, 4 << 30, 400 << 30, 4 << 40] {
            let parts = parts(bytes);
            assert!(parts.len() as u64 <= MOST_PARTS + 1, "{bytes}");
            assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), bytes);
            for (index, part) in parts.iter().enumerate() {
                assert_eq!(usize::from(part.number), index + 1);
                assert_eq!(part.from, index as u64 * parts[0].bytes);
            }
        }
    }

    #[test]
    fn an_upload_is_found_by_its_key() {
        let text = "<L><Upload><Key>a/b</Key><UploadId>1</UploadId></Upload>\
            <Upload><UploadId>2</UploadId><Key>a</Key></Upload>\
            <Upload><Key>a</Key><UploadId>3</UploadId></Upload></L>";
        assert_eq!(upload_of(text, "a").as_deref(), Some("3"));
        assert_eq!(upload_of(text, "a/b").as_deref(), Some("1"));
        assert_eq!(upload_of(text, "b"), None);
        assert_eq!(upload_of("<html>", "b"), None);
    }
}
