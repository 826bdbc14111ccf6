//! Each case of the matrix against the machine, in simulated time.

use std::collections::HashMap;
use std::time::Duration;

use netd_core::rng::Rng;
use netd_udhcpc::client::{Action, Change, Client, Config, Event};
use netd_udhcpc::env;
use netd_udhcpc::message::{MessageType, Outgoing, decode};
use netd_udhcpc::routes::{Policy, vet};

use crate::cases::{Asked, CASES, Case, Ours};
use crate::common::MAC;

/// As long as the server goes on like that.
const PATIENCE: Duration = Duration::from_secs(120);

/// The first lease: its address, its variables, and when it came.
struct Outcome {
    lease: Option<([u8; 4], HashMap<String, String>, Duration)>,
    /// Messages that the client sent.
    sent: usize,
}

fn run(case: &Case) -> Outcome {
    let start = Duration::from_secs(1000);
    let mut client = Client::new(Config::default(), Rng::seeded(11));
    let mut now = start;
    let (mut discovers, mut requests) = (0, 0);
    let mut actions = client.step(now, Event::Start);
    for _ in 0..10_000 {
        let mut replies = Vec::new();
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Send(message, _) => replies.extend(answered(case, &message, &mut discovers, &mut requests)),
                Action::Tell(Change::Bound(mut grant)) => {
                    vet(Policy::Safe, &mut grant.reply, &[]);
                    let text = |v: Vec<u8>| String::from_utf8_lossy(&v).into_owned();
                    let env = env::full("eth0", &grant.reply).into_iter().map(|(n, v)| (n, text(v))).collect();
                    let lease = Some((grant.ip.octets(), env, now - start));
                    return Outcome { lease, sent: discovers + requests };
                }
                Action::Log(text) | Action::Debug(text) => {
                    assert!(!text.chars().any(char::is_control), "{}: {text:?} in the log", case.name);
                }
                _ => {}
            }
        }
        for bytes in replies {
            if let Ok(reply) = decode(&bytes, MAC) {
                actions.extend(client.step(now, Event::Reply(Box::new(reply), [2; 6])));
            }
        }
        if actions.is_empty() {
            now = client.deadline().expect("somebody without a lease has a deadline").max(now);
            if now > start + PATIENCE {
                return Outcome { lease: None, sent: discovers + requests };
            }
            actions = client.step(now, Event::Timer);
        }
    }
    panic!("{}: 10,000 steps in {PATIENCE:?}", case.name);
}

fn answered(case: &Case, message: &Outgoing, discovers: &mut usize, requests: &mut usize) -> Vec<Vec<u8>> {
    let request = match message.kind {
        MessageType::Discover => false,
        MessageType::Request => true,
        _ => return vec![],
    };
    let count = if request { requests } else { discovers };
    *count += 1;
    (case.answer)(&Asked {
        request,
        before: *count - 1,
        xid: message.xid,
        mac: MAC,
        server: message.server_id.map(|ip| ip.octets()),
    })
}

#[test]
fn the_matrix_has_our_column() {
    for case in CASES {
        let outcome = run(case);
        match (case.ours, outcome.lease) {
            (Ours::None, lease) => assert!(lease.is_none(), "{}: {lease:?}; {:?}", case.name, case.others),
            (Ours::Bound(want, variables), Some((ip, env, took))) => {
                assert_eq!(ip, want, "{}", case.name);
                for (name, value) in variables {
                    assert_eq!(env.get(*name).map(String::as_str), *value, "{}: {name}", case.name);
                }
                assert!(took < Duration::from_secs(16), "{}: after {took:?}", case.name);
            }
            (Ours::Bound(..), None) => panic!("{}: no lease", case.name),
        }
        // Whatever a server does, it cannot make us flood: RFC 2131 4.1 is about one message in 4
        // to 64 s; a fast beginning, refusals and their second tries come on top.
        assert!(outcome.sent < 200, "{}: {} messages in {PATIENCE:?}", case.name, outcome.sent);
    }
}

#[test]
fn each_case_is_named_once_and_tells_of_the_others() {
    for case in CASES {
        assert_eq!(CASES.iter().filter(|c| c.name == case.name).count(), 1, "{}", case.name);
        assert!(case.others.iter().all(|other| !other.is_empty()), "{}", case.name);
    }
    assert!(CASES.len() >= 40);
}
