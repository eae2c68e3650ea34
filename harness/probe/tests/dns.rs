//! Name clients against a server made for the test, over the loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType as Wire};
use tokio::net::UdpSocket;
use touchstone_probe::{ask_names_udp, open_udp};
use touchstone_spec::{NameAnswer, NameRecord, Observation, Outcome, RecordType};

type Done = Result<(), Box<dyn std::error::Error>>;

const WAIT: Duration = Duration::from_millis(300);

/// Answers A with an alias and an address, and AAAA as told, if at all.
async fn server(aaaa: Option<ResponseCode>) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
            let mut answer = question.clone().into_response();
            if question.queries.iter().any(|query| query.query_type() == Wire::A) {
                let name = question.queries[0].name().clone();
                let other = Name::from_ascii("Host.example.test.").unwrap_or_default();
                let alias = RData::CNAME(hickory_proto::rr::rdata::CNAME(other.clone()));
                answer.add_answer(Record::from_rdata(name, 5, alias));
                let ip = RData::A(std::net::Ipv4Addr::new(192, 0, 2, 1).into());
                answer.add_answer(Record::from_rdata(other, 5, ip));
            } else {
                let Some(code) = aaaa else { continue };
                answer.metadata.response_code = code;
            }
            if let Ok(text) = answer.to_vec() {
                // A client that is gone needs no answer.
                let _ = socket.send_to(&text, client).await;
            }
        }
    });
    Ok(address)
}

async fn ask(server: SocketAddr) -> Result<Observation, Box<dyn std::error::Error>> {
    let types = BTreeSet::from([RecordType::A, RecordType::Aaaa]);
    let socket = open_udp(server, None)?;
    Ok(ask_names_udp(socket, server, "web.a.svc.cluster.local.", &types, WAIT).await)
}

#[tokio::test]
async fn both_types_at_once() -> Done {
    let saw = ask(server(Some(ResponseCode::NoError)).await?).await?;
    let want = NameAnswer::records([
        NameRecord::Alias("host.example.test.".to_owned()),
        NameRecord::Address([192, 0, 2, 1].into()),
    ]);
    assert_eq!(saw, Observation::Saw(Outcome::Answered(want)));
    Ok(())
}

#[tokio::test]
async fn one_missing_answer_is_a_loss() -> Done {
    assert_eq!(ask(server(None).await?).await?, Observation::Saw(Outcome::Dropped));
    Ok(())
}

#[tokio::test]
async fn one_failure_is_a_failure() -> Done {
    let saw = ask(server(Some(ResponseCode::ServFail)).await?).await?;
    assert!(matches!(saw, Observation::Saw(Outcome::Answered(NameAnswer::Failed(_)))), "{saw:?}");
    Ok(())
}
