//! Clients that ask name servers, as the resolver of a program in a pod does.
//!
//! All types are asked for at the same time from one socket, and nothing is asked twice: an answer
//! that was lost is seen as such. The search path is tried by the caller, with [`search_names`] and
//! [`Findings`], since every name gets a socket of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr;
use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use touchstone_spec::{NDOTS, NameAnswer, NameRecord, Observation, Outcome, Question, RecordType};

use crate::errors::{broke, failed};
use crate::tcp::establish;

/// Longest answer over UDP, as clients without EDNS have it.
const DATAGRAM: usize = 512;

/// The absolute names that stand for a question's name, in the order in which a resolver with
/// `ndots:5` tries them.
#[must_use]
pub fn search_names(question: &Question) -> Vec<String> {
    let name = &question.name;
    if name.ends_with('.') {
        return vec![name.clone()];
    }
    let mut names: Vec<String> =
        question.search.iter().map(|domain| format!("{name}.{domain}.")).collect();
    let as_it_is = format!("{name}.");
    if name.matches('.').count() >= NDOTS {
        names.insert(0, as_it_is);
    } else {
        names.push(as_it_is);
    }
    names
}

/// What a search has found so far.
#[derive(Debug, Default)]
pub struct Findings {
    nothing: bool,
    failed: Option<String>,
}

impl Findings {
    /// Takes the answer about one name of the path; gives it back if the search ends with it.
    pub fn take(&mut self, answer: NameAnswer) -> Option<NameAnswer> {
        match answer {
            found @ NameAnswer::Records(_) => return Some(found),
            NameAnswer::Nothing => self.nothing = true,
            NameAnswer::NoSuchName => {}
            NameAnswer::Failed(why) => drop(self.failed.get_or_insert(why)),
        }
        None
    }

    /// What a search without records amounts to.
    #[must_use]
    pub fn end(self) -> NameAnswer {
        match (self.failed, self.nothing) {
            (Some(why), _) => NameAnswer::Failed(why),
            (None, true) => NameAnswer::Nothing,
            (None, false) => NameAnswer::NoSuchName,
        }
    }
}

/// Asks `server` about one absolute name over UDP, from an unconnected, perhaps bound socket.
///
/// `Dropped` means that an answer is missing after `wait`.
pub async fn ask_names_udp(
    fd: OwnedFd,
    server: SocketAddr,
    name: &str,
    types: &BTreeSet<RecordType>,
    wait: Duration,
) -> Observation {
    let attempt = async {
        let mut asked = Asked::new(server, name, types)?;
        let socket = connected(fd, server)?;
        for text in asked.texts() {
            socket.send(text).await.map_err(|error| failed("send to", server, &error, None))?;
        }
        let mut datagram = [0u8; DATAGRAM];
        loop {
            let length = socket
                .recv(&mut datagram)
                .await
                .map_err(|error| failed("read from", server, &error, None))?;
            asked.hear(datagram.get(..length).unwrap_or_default());
            if let Some(answer) = asked.whole() {
                return Ok(answer);
            }
        }
    };
    seen(timeout(wait, attempt).await)
}

/// Asks `server` about one absolute name over TCP, from an unconnected, perhaps bound socket.
///
/// `Dropped` means that an answer is missing after `wait`.
pub async fn ask_names_tcp(
    fd: OwnedFd,
    server: SocketAddr,
    name: &str,
    types: &BTreeSet<RecordType>,
    wait: Duration,
) -> Observation {
    let attempt = async {
        let mut asked = Asked::new(server, name, types)?;
        let mut stream = establish(fd, server).await?;
        for text in asked.texts() {
            let length = u16::try_from(text.len())
                .map_err(|error| broke("ask a question of", server, error))?;
            let framed = [&length.to_be_bytes(), text].concat();
            stream
                .write_all(&framed)
                .await
                .map_err(|error| failed("send to", server, &error, None))?;
        }
        loop {
            let reading = |error| failed("read from", server, &error, None);
            let length = stream.read_u16().await.map_err(reading)?;
            let mut text = vec![0; usize::from(length)];
            stream.read_exact(&mut text).await.map_err(reading)?;
            asked.hear(&text);
            if let Some(answer) = asked.whole() {
                return Ok(answer);
            }
        }
    };
    seen(timeout(wait, attempt).await)
}

fn seen(
    outcome: Result<Result<NameAnswer, Observation>, tokio::time::error::Elapsed>,
) -> Observation {
    match outcome {
        Ok(Ok(answer)) => Observation::Saw(Outcome::Answered(answer)),
        Ok(Err(saw)) => saw,
        Err(_) => Observation::Saw(Outcome::Dropped),
    }
}

fn connected(fd: OwnedFd, server: SocketAddr) -> Result<UdpSocket, Observation> {
    const ACT: &str = "connect to";
    let socket = Socket::from(fd);
    socket.set_nonblocking(true).map_err(|error| broke("prepare the socket for", server, error))?;
    socket.connect(&server.into()).map_err(|error| failed(ACT, server, &error, None))?;
    UdpSocket::from_std(socket.into()).map_err(|error| broke(ACT, server, error))
}

/// Questions about one name that are under way.
struct Asked {
    name: rr::Name,
    /// By type: the question's number and text.
    questions: BTreeMap<RecordType, (u16, Vec<u8>)>,
    answers: BTreeMap<RecordType, NameAnswer>,
}

impl Asked {
    fn new(
        server: SocketAddr,
        name: &str,
        types: &BTreeSet<RecordType>,
    ) -> Result<Asked, Observation> {
        const ACT: &str = "put a question to";
        let name = rr::Name::from_ascii(name).map_err(|error| broke(ACT, server, error))?;
        let mut questions = BTreeMap::new();
        for kind in types {
            let mut message = Message::query();
            // Numbers must differ, or one answer would be taken for the other.
            while questions.values().any(|(id, _)| *id == message.metadata.id) {
                message = Message::query();
            }
            message.metadata.recursion_desired = true;
            message.add_query(Query::query(name.clone(), wire(*kind)));
            let text = message.to_vec().map_err(|error| broke(ACT, server, error))?;
            questions.insert(*kind, (message.metadata.id, text));
        }
        Ok(Asked { name, questions, answers: BTreeMap::new() })
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.questions.values().map(|(_, text)| text.as_slice())
    }

    /// Takes one message of the server; what answers none of the questions is passed over.
    fn hear(&mut self, text: &[u8]) {
        let Ok(message) = Message::from_vec(text) else { return };
        let ours = message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query;
        let kind = self.questions.iter().find(|(kind, (id, _))| {
            *id == message.metadata.id
                && message
                    .queries
                    .iter()
                    .any(|query| query.query_type() == wire(**kind) && *query.name() == self.name)
        });
        if let (true, Some((kind, _))) = (ours, kind) {
            let answer = meaning(&message);
            self.answers.entry(*kind).or_insert(answer);
        }
    }

    /// The answer to all questions together, once all are answered.
    fn whole(&self) -> Option<NameAnswer> {
        if self.answers.len() < self.questions.len() {
            return None;
        }
        let mut records: Vec<NameRecord> = Vec::new();
        let mut findings = Findings::default();
        for answer in self.answers.values() {
            if let Some(NameAnswer::Records(more)) = findings.take(answer.clone()) {
                // An alias is told for both types.
                for record in more {
                    let twice = matches!(record, NameRecord::Alias(_)) && records.contains(&record);
                    if !twice {
                        records.push(record);
                    }
                }
            }
        }
        match (&findings.failed, records.is_empty()) {
            (None, false) => Some(NameAnswer::records(records)),
            // One of two questions that failed must not be hidden by the other.
            (Some(why), _) => Some(NameAnswer::Failed(why.clone())),
            (None, true) => Some(findings.end()),
        }
    }
}

fn meaning(message: &Message) -> NameAnswer {
    let code = message.metadata.response_code;
    if message.metadata.truncation {
        return NameAnswer::Failed("a truncated answer".to_owned());
    }
    if code == ResponseCode::NXDomain {
        return NameAnswer::NoSuchName;
    }
    if code != ResponseCode::NoError {
        return NameAnswer::Failed(code.to_string());
    }
    let text = |name: &rr::Name| name.to_lowercase().to_ascii();
    let records: Vec<NameRecord> = message
        .answers
        .iter()
        .map(|record| {
            // Types that nobody asked for are strange, and shown as what they are.
            if let rr::RData::A(ip) = &record.data {
                NameRecord::Address(IpAddr::V4(ip.0))
            } else if let rr::RData::AAAA(ip) = &record.data {
                NameRecord::Address(IpAddr::V6(ip.0))
            } else if let rr::RData::CNAME(name) = &record.data {
                NameRecord::Alias(text(&name.0))
            } else if let rr::RData::PTR(name) = &record.data {
                NameRecord::Pointer(text(&name.0))
            } else if let rr::RData::SRV(srv) = &record.data {
                NameRecord::Service { target: text(&srv.target), port: srv.port }
            } else {
                NameRecord::Pointer(format!("a record of type {}", record.record_type()))
            }
        })
        .collect();
    if records.is_empty() { NameAnswer::Nothing } else { NameAnswer::records(records) }
}

fn wire(kind: RecordType) -> rr::RecordType {
    match kind {
        RecordType::A => rr::RecordType::A,
        RecordType::Aaaa => rr::RecordType::AAAA,
        RecordType::Cname => rr::RecordType::CNAME,
        RecordType::Srv => rr::RecordType::SRV,
        RecordType::Ptr => rr::RecordType::PTR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> Vec<String> {
        search_names(&Question {
            name: name.to_owned(),
            types: BTreeSet::new(),
            search: vec!["a.svc.x".to_owned(), "x".to_owned()],
            then: None,
        })
    }

    #[test]
    fn the_search_path() {
        assert_eq!(names("web."), ["web."]);
        assert_eq!(names("web"), ["web.a.svc.x.", "web.x.", "web."]);
        assert_eq!(names("a.b.c.d.e"), ["a.b.c.d.e.a.svc.x.", "a.b.c.d.e.x.", "a.b.c.d.e."]);
        assert_eq!(names("a.b.c.d.e.f").first().map(String::as_str), Some("a.b.c.d.e.f."));
    }

    #[test]
    fn a_search_without_records() {
        let end = |answers: &[NameAnswer]| {
            let mut findings = Findings::default();
            for answer in answers {
                assert_eq!(findings.take(answer.clone()), None);
            }
            findings.end()
        };
        let failed = NameAnswer::Failed("x".to_owned());
        assert_eq!(end(&[NameAnswer::NoSuchName, NameAnswer::NoSuchName]), NameAnswer::NoSuchName);
        assert_eq!(end(&[NameAnswer::Nothing, NameAnswer::NoSuchName]), NameAnswer::Nothing);
        assert_eq!(end(&[NameAnswer::Nothing, failed.clone()]), failed);
    }
}
