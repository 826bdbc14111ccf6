//! A machine to play with: its time, and what it did last in short words.

use std::time::Duration;

use netd_core::acd::Timing;
use netd_core::rng::Rng;
use netd_udhcpc::client::{Action, Change, Client, Config, Destination, Event, Resume};
use netd_udhcpc::message::Outgoing;
use netd_udhcpc::schedule::Schedule;

use super::{ACK, ADDRESS, MAC, OFFER, SERVER, Wire};

/// Where all replies come from.
pub const FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A machine and its time; `said` is what the last step did, in short words.
pub struct Bench {
    pub client: Client,
    pub now: Duration,
    pub said: Vec<String>,
    pub actions: Vec<Action>,
    pub last: Option<Outgoing>,
    /// A script runs: it does not end by itself.
    pub busy: bool,
    /// The carrier was lost just now. Where it comes back without that, it was lost in the same
    /// moment.
    pub lost: bool,
}

pub fn word(action: &Action) -> Option<String> {
    Some(match action {
        Action::Send(m, Destination::Broadcast) => format!("{:?}", m.kind),
        Action::Send(m, Destination::Server { .. }) => format!("{:?} to server", m.kind),
        Action::Tell(Change::Deconfig) => "deconfig".into(),
        Action::Tell(Change::LeaseFail) => "leasefail".into(),
        Action::Tell(Change::Nak(_)) => "nak".into(),
        Action::Tell(Change::Bound(_)) => "bound".into(),
        Action::Tell(Change::Renew(_)) => "renew".into(),
        Action::Tell(Change::Stop) => "stop".into(),
        Action::Background => "background".into(),
        Action::Exit(code) => format!("exit {code}"),
        Action::SendArp(arp) if arp.sender_ip.is_unspecified() => "probe".into(),
        Action::SendArp(arp) if arp.target_mac != [0; 6] => "question".into(),
        Action::SendArp(_) => "announce".into(),
        Action::Watch(_) | Action::Log(_) | Action::Debug(_) => return None,
    })
}

impl Bench {
    pub fn new(config: Config) -> Bench {
        let client = Client::new(config, Rng::seeded(1));
        Bench { client, now: secs(1000), said: vec![], actions: vec![], last: None, busy: false, lost: false }
    }

    pub fn started(config: Config) -> Bench {
        let mut bench = Bench::new(config);
        bench.event(Event::Start);
        bench
    }

    pub fn event(&mut self, event: Event) -> Vec<String> {
        if matches!(event, Event::Carrier) && !self.lost {
            self.client.step(self.now, Event::CarrierLost);
        }
        self.lost = matches!(event, Event::CarrierLost);
        let after = (!self.busy).then_some(Event::Idle);
        let events = [event].into_iter().chain(after);
        self.actions = events.flat_map(|event| self.client.step(self.now, event)).collect();
        for action in &self.actions {
            if let Action::Send(message, _) = action {
                self.last = Some(message.clone());
            }
        }
        self.said = self.actions.iter().filter_map(word).collect();
        self.said.clone()
    }

    pub fn xid(&self) -> u32 {
        self.last.as_ref().map_or(0, |m| m.xid)
    }

    pub fn hear(&mut self, wire: Wire) -> Vec<String> {
        self.event(Event::Reply(Box::new(wire.reply()), FROM))
    }

    /// Hears a usual message of this type in the current transaction.
    pub fn usual(&mut self, kind: u8) -> Vec<String> {
        self.hear(Wire::usual(kind, self.xid()))
    }

    /// Goes to the deadline.
    pub fn wait(&mut self) -> Vec<String> {
        self.now = self.client.deadline().expect("a deadline");
        self.event(Event::Timer)
    }

    /// Goes from deadline to deadline until one says `word`; at most 200 of them.
    pub fn wait_for(&mut self, word: &str) {
        for _ in 0..200 {
            if self.wait().iter().any(|w| w == word) {
                return;
            }
        }
        panic!("no {word} in 200 deadlines");
    }

    pub fn in_state(state: &str) -> Bench {
        Bench::in_state_with(state, Config::default())
    }

    pub fn in_state_with(state: &str, config: Config) -> Bench {
        let resume = Resume { ip: ADDRESS, server_id: SERVER, end: secs(3000) };
        let mut b = match state {
            "Rebooting" => Bench::started(Config { resume: Some(resume), ..config }),
            "Remembered" => Bench::started(Config { remembered: Some(ADDRESS), ..config }),
            "Init" => {
                let schedule = Schedule::from_options(Some(1), None, None);
                let mut b = Bench::started(Config { schedule, ..config });
                b.wait_for("leasefail");
                b
            }
            "Checking" => {
                let mut b = Bench::started(Config { acd: Some(Timing::one_probe(secs(2))), mac: MAC, ..config });
                assert_eq!(b.usual(OFFER), ["Request", "probe"]);
                assert_eq!(b.usual(ACK), [""; 0]);
                b
            }
            _ => Bench::started(config),
        };
        match state {
            "Init" | "Selecting" | "Rebooting" | "Remembered" | "Checking" => return b,
            _ => assert_eq!(b.usual(OFFER), ["Request"]),
        }
        if state == "Requesting" {
            return b;
        }
        assert_eq!(b.usual(ACK), ["bound"]);
        match state {
            "Renewing" => assert_eq!(b.wait(), ["Request to server"]),
            "Rebinding" => b.wait_for("Request"),
            "Roamed" => {
                b.now += secs(2);
                assert_eq!(b.event(Event::Carrier), ["Request"]);
            }
            "Released" => assert_eq!(b.event(Event::Release), ["Release to server", "deconfig"]),
            _ => {}
        }
        b
    }
}

/// With conflict detection.
pub fn checked(timing: Timing) -> Config {
    Config { acd: Some(timing), mac: MAC, ..Config::default() }
}
