//! The client machine. The bytes are a story of events, and the rules of tests/sim.rs hold at each
//! step.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::acd::Timing;
use netd_core::rng::Rng;
use netd_core::wire::arp::Arp;
use netd_udhcpc::client::{Action, Change, Client, Config, Event, Resume, Watch};
use netd_udhcpc::message::{MessageType, Template, decode};
use netd_udhcpc::schedule::Schedule;

use crate::MAC;
use crate::dhcp::environment;

const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The same as in tests/sim.rs.
const MAX_PER_MINUTE: usize = 40;
/// The limit of events in one story.
const MAX_EVENTS: usize = 400;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Takes bytes from the story; zeros after its end.
struct Story<'a>(&'a [u8]);

impl Story<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken.to_vec()
    }
}

struct World<'a> {
    story: Story<'a>,
    client: Client,
    now: Duration,
    /// The xid of the last message, and the different one before it.
    xid: u32,
    before: u32,
    /// When each transaction asked a server, or all servers, for an address: at its first REQUEST,
    /// or at the DISCOVER that may be answered with a lease.
    asked: HashMap<(u32, Option<Ipv4Addr>), (MessageType, Duration)>,
    /// The address in use, and the end of its lease.
    held: Option<(Ipv4Addr, Duration)>,
    /// Whether the client looks for conflicts: then it must have probed an address since the last
    /// loss of one.
    careful: bool,
    probed: Vec<Ipv4Addr>,
    watched: Option<Ipv4Addr>,
    sent: VecDeque<Duration>,
    /// Packets that users and links caused beside the protocol's own, in the same minute.
    allowed: VecDeque<Duration>,
    ended: bool,
}

/// Plays one story.
pub fn client(data: &[u8]) {
    let mut story = Story(data);
    let (flags, more) = (story.byte(), story.byte());
    let acd = match more % 4 {
        0 => None,
        1 => Some(Timing::FAST),
        2 => Some(Timing::RFC5227),
        _ => Some(Timing::one_probe(Duration::from_millis(500))),
    };
    let now = secs(1000);
    let resume = (flags & 1 != 0).then_some(Resume {
        ip: Ipv4Addr::new(10, 9, 0, 133),
        server_id: Ipv4Addr::new(10, 9, 0, 1),
        end: now + secs(300),
    });
    let config = Config {
        resume,
        acd,
        rapid_commit: flags & 2 != 0,
        release: flags & 4 != 0,
        exit_on_failure: flags & 8 != 0,
        quit: flags & 16 != 0,
        remembered: (more & 4 != 0).then_some(Ipv4Addr::new(10, 9, 0, 134)),
        ipv6_only: more & 8 != 0,
        anonymous: more & 16 != 0,
        background_on_failure: more & 32 != 0,
        requested: (flags & 32 != 0).then_some(Ipv4Addr::new(10, 9, 0, 77)),
        schedule: if flags & 64 != 0 {
            Schedule::from_options(Some(2), Some(secs(1)), None)
        } else {
            Schedule::Adaptive
        },
        mac: MAC,
        ..Config::default()
    };
    let mut world = World {
        story,
        client: Client::new(config, Rng::seeded(u64::from(flags))),
        now,
        xid: 0,
        before: 0,
        asked: HashMap::new(),
        held: resume.map(|r| (r.ip, r.end)),
        careful: acd.is_some(),
        probed: resume.map(|r| r.ip).into_iter().collect(),
        watched: None,
        sent: VecDeque::new(),
        allowed: VecDeque::new(),
        ended: false,
    };
    world.step(Event::Start);
    for _ in 0..MAX_EVENTS {
        if world.ended || world.story.0.is_empty() {
            return;
        }
        world.next();
    }
}

impl World<'_> {
    fn next(&mut self) {
        let event = match self.story.byte() % 16 {
            // The deadline passes, as with a timer.
            0..=4 => {
                self.now = self.client.deadline().map_or(self.now + secs(1), |at| at.max(self.now));
                Event::Timer
            }
            5 => {
                self.now += secs(u64::from(self.story.byte()) * 60);
                Event::Timer
            }
            kind @ 6..=9 => match self.reply(if kind == 9 { self.before } else { self.xid }) {
                Some(found) => found,
                None => return,
            },
            10 => {
                let mut bytes = self.story.bytes();
                if let Some(xid) = bytes.get_mut(4..8) {
                    xid.copy_from_slice(&self.xid.to_be_bytes());
                }
                let Ok(reply) = decode(&bytes, MAC) else { return };
                Event::Reply(Box::new(reply), OTHER)
            }
            11 if self.story.byte() & 1 == 0 => self.asked(Event::ScriptEnded),
            11 => {
                // The carrier that comes back may be of another network.
                self.step(Event::CarrierLost);
                self.asked(Event::Carrier)
            }
            12 => self.asked(Event::Renew),
            13 => self.asked(Event::Release),
            14 => {
                let ip = self.watched.unwrap_or(Ipv4Addr::new(10, 9, 0, 133));
                let arp = match self.story.byte() % 3 {
                    0 => Arp::announcement(OTHER, ip),
                    1 => Arp::probe(OTHER, ip),
                    _ => Arp::request(OTHER, Ipv4Addr::new(10, 9, 0, 1), ip),
                };
                self.asked(Event::Arp(arp))
            }
            _ => match self.story.byte() % 8 {
                0 => Event::Stop,
                1 => Event::Gone,
                2 => Event::Mac(OTHER),
                3 => Event::CarrierLost,
                4 => Event::Idle,
                _ => self.asked(Event::Unsent),
            },
        };
        self.now += Duration::from_millis(u64::from(self.story.byte()));
        self.step(event);
    }

    /// A request of a user or a link may cost two more packets.
    fn asked(&mut self, event: Event) -> Event {
        self.allowed.extend([self.now; 2]);
        event
    }

    /// A reply that is nearly correct.
    fn reply(&mut self, xid: u32) -> Option<Event> {
        let what = self.story.byte();
        let kind = [2, 5, 5, 6][usize::from(what & 3)];
        let server = 1 + (what >> 2 & 1);
        let yiaddr = match what >> 3 & 3 {
            0 => [10, 9, 0, 133],
            1 => [10, 9, 0, 134],
            2 => [10, 9, 0, server],
            _ => [224, 0, 0, 1],
        };
        let lease = [3600, 120, 10, 1, 0, 600, 86_400, u32::MAX][usize::from(what >> 5)];
        let mut bytes = vec![0; 236];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&xid.to_be_bytes());
        bytes[16..20].copy_from_slice(if kind == 6 { &[0; 4] } else { &yiaddr });
        bytes[28..34].copy_from_slice(&MAC);
        bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind, 54, 4, 10, 9, 0, server]);
        if kind != 6 {
            bytes.extend([51, 4]);
            bytes.extend(lease.to_be_bytes());
            bytes.extend([1, 4, 255, 255, 255, 0]);
        }
        bytes.extend(self.story.bytes());
        bytes.push(255);
        let reply = decode(&bytes, MAC).ok()?;
        Some(Event::Reply(Box::new(reply), OTHER))
    }

    fn step(&mut self, event: Event) {
        // An unsent message does not count as sent.
        if matches!(event, Event::Unsent) {
            self.sent.pop_back();
        }
        let actions = self.client.step(self.now, event);
        assert!(actions.len() <= 24, "{} actions at once", actions.len());
        for action in actions {
            self.perform(action);
        }
        if !self.ended {
            self.check();
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send(message, _) => {
                if message.xid != self.xid {
                    self.before = std::mem::replace(&mut self.xid, message.xid);
                }
                let key = (message.xid, message.server_id);
                let repeated = self.asked.get(&key).is_some_and(|(kind, _)| *kind == MessageType::Request);
                if !repeated && (message.kind == MessageType::Request || message.rapid_commit) {
                    self.asked.insert(key, (message.kind, self.now));
                }
                self.sent.push_back(self.now);
                let template = Template { parameters: vec![1, 3], default_client_id: true, ..Template::default() };
                let len = message.encode(MAC, &template).len();
                assert!((300..=576).contains(&len), "a message of {len} bytes");
            }
            Action::SendArp(arp) if arp.sender_ip.is_unspecified() => self.probed.push(arp.target_ip),
            Action::SendArp(_) => {}
            Action::Watch(Watch::Nothing) => self.watched = None,
            Action::Watch(Watch::Address(ip) | Watch::Answers { ip, .. }) => self.watched = Some(ip),
            Action::Tell(Change::Bound(grant) | Change::Renew(grant)) => {
                assert!(grant.end > self.now, "a lease that has ended");
                if let Some(lease) = grant.reply.number(51) {
                    // RFC 2131 section 4.4.1: the lease counts from the request, however late the
                    // answer comes.
                    let asked = |server| self.asked.get(&(grant.reply.xid, server));
                    let (_, asked) =
                        asked(Some(grant.server_id)).or(asked(None)).expect("a lease that was not asked for");
                    let longest = *asked + secs(u64::from(lease));
                    assert!(lease == u32::MAX || grant.end <= longest, "{:?}, granted until {longest:?}", grant.end);
                }
                let kept = self.held.is_some_and(|(ip, _)| ip == grant.ip);
                assert!(kept || !self.careful || self.probed.contains(&grant.ip), "{} used unprobed", grant.ip);
                environment(&grant.reply);
                self.held = Some((grant.ip, grant.end));
            }
            Action::Tell(Change::Deconfig | Change::Stop) => {
                self.held = None;
                self.probed.clear();
            }
            Action::Exit(_) => self.ended = true,
            Action::Tell(Change::Nak(_) | Change::LeaseFail) | Action::Background => {}
            Action::Log(text) | Action::Debug(text) => assert!(!text.chars().any(char::is_control), "{text:?}"),
        }
    }

    fn check(&mut self) {
        let now = self.now;
        if let Some(ip) = self.client.address() {
            let (held, end) = self.held.expect("an address in use that nobody granted");
            assert!(ip == held && now < end, "{ip} at {now:?}; {held} until {end:?}");
        }
        assert!(self.client.deadline().is_none_or(|at| at > now), "{:?} at {now:?}", self.client.deadline());
        for times in [&mut self.sent, &mut self.allowed] {
            while times.front().is_some_and(|at| *at + secs(60) < now) {
                times.pop_front();
            }
        }
        let most = MAX_PER_MINUTE + self.allowed.len();
        assert!(self.sent.len() <= most, "{} packets in a minute, {most} allowed", self.sent.len());
    }
}
