//! The hostile-server matrix over a real wire. The binary survives every case, and accepts or
//! refuses as the table says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::dhcpd::{Config, Custom, Dhcpd, Message, MessageType, Mode};
use testkit::{Lab, Proc, Signal, holds_for, is_running, isolated, wait_for, wait_until};

use crate::dhcp::{ROUTER, SOON, World, field, native, wait_ip, world};

/// The state machine's own test has the same bytes.
#[path = "../../crates/netd-udhcpc/tests/hostile/cases.rs"]
mod cases;

use cases::{Asked, CASES, Case, Ours};

/// The client gives a rogue up after three unanswered requests.
const PATIENCE: Duration = Duration::from_secs(25);

/// The case that the server plays now, and how many DISCOVERs and REQUESTs it has got in this case.
#[derive(Clone)]
struct Stage(Arc<Mutex<(&'static Case, [usize; 2])>>);

impl Stage {
    fn start(w: &World) -> (Stage, Dhcpd) {
        let stage = Stage(Arc::new(Mutex::new((&CASES[0], [0; 2]))));
        let player = stage.clone();
        let mode = Mode::Custom(Custom(Box::new(move |message| player.answer(message))));
        (stage, Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap())
    }

    fn play(&self, case: &'static Case) {
        *self.0.lock().unwrap() = (case, [0; 2]);
    }

    /// Whether a message came a second time: then the client did not accept the first answer.
    fn again(&self) -> bool {
        self.0.lock().unwrap().1.iter().any(|count| *count >= 2)
    }

    fn answer(&self, message: &Message) -> Vec<Vec<u8>> {
        let request = match message.opts().msg_type() {
            Some(MessageType::Discover) => false,
            Some(MessageType::Request) => true,
            _ => return vec![],
        };
        let (case, counts) = &mut *self.0.lock().unwrap();
        let count = &mut counts[usize::from(request)];
        *count += 1;
        (case.answer)(&Asked {
            request,
            before: *count - 1,
            xid: message.xid(),
            mac: message.chaddr().try_into().unwrap(),
            server: server_of(message),
        })
    }
}

fn server_of(message: &Message) -> Option<[u8; 4]> {
    let mut all = message.opts().iter().map(|(_, option)| format!("{option:?}"));
    let text = all.find_map(|o| o.strip_prefix("ServerIdentifier(").map(|o| o.trim_end_matches(')').to_owned()))?;
    text.parse::<std::net::Ipv4Addr>().ok().map(|ip| ip.octets())
}

/// A script that writes its event and its environment, and then a line that marks the end.
fn scribe(lab: &Lab) -> (String, PathBuf) {
    let (path, out) = (lab.dir().join("scribe.sh"), lab.dir().join("scribe.out"));
    let text = format!("#!/bin/sh\n{{ echo \"EVENT=$1\"; /usr/bin/env; echo DONE; }} >>{}\n", out.display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (path.to_str().unwrap().to_owned(), out)
}

/// What the script has written, one entry per event: its lines, the event's name first. Values may
/// be any bytes.
fn heard(out: &Path) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(&fs::read(out).unwrap_or_default()).into_owned();
    let whole = text.rsplit_once("DONE\n").map(|(whole, _)| whole).unwrap_or_default();
    whole.split("DONE\n").filter(|e| !e.is_empty()).map(|e| e.lines().map(str::to_owned).collect()).collect()
}

/// Plays one case to a client that has been through others.
fn act(client: &Proc, stage: &Stage, out: &Path, case: &'static Case) {
    println!("{}; others: {:?}", case.name, case.others);
    // The client goes back to the beginning: it releases its address, then asks for it again.
    let before = heard(out).len();
    client.signal(Signal::SIGUSR2);
    wait_until("the release", SOON, || heard(out).iter().skip(before).any(|e| e[0] == "EVENT=deconfig"));
    stage.play(case);
    let before = heard(out).len();
    client.signal(Signal::SIGUSR1);
    let bound = || heard(out).into_iter().skip(before).find(|e| e[0] == "EVENT=bound");
    match case.ours {
        Ours::Bound(ip, variables) => {
            let said = wait_for(&format!("a lease: {}", case.name), PATIENCE, bound);
            let var = |name: &str| said.iter().find_map(|l| l.strip_prefix(&format!("{name}="))).map(str::to_owned);
            assert_eq!(var("ip"), Some(ip.map(|b| b.to_string()).join(".")), "{}", case.name);
            for (name, want) in variables {
                assert_eq!(var(name).as_deref(), *want, "{}: {name}", case.name);
            }
        }
        Ours::None => {
            wait_until(&format!("a second try: {}", case.name), PATIENCE, || stage.again());
            assert_eq!(bound(), None, "{}", case.name);
        }
    }
    assert!(is_running(client.pid()), "{}: {}", case.name, client.log());
}

/// Every fourth case.
fn part(lab: &Lab, first: usize) {
    let w = world(lab);
    let (stage, _server) = Stage::start(&w);
    let (script, out) = scribe(lab);
    let client = w.home.spawn(&["udhcpc", "-f", "-i", "eth0", "-s", &script, "-O", "staticroutes"]);
    wait_until("the first lease", SOON, || heard(&out).iter().any(|e| e[0] == "EVENT=bound"));
    for case in CASES.iter().skip(first).step_by(4) {
        act(&client, &stage, &out, case);
    }
    // After all cases the client is as good as new, and has not flooded the log.
    act(&client, &stage, &out, &CASES[0]);
    assert!(!client.log().chars().any(|c| c.is_control() && c != '\n'), "{:?}", client.log());
    assert!(client.stop().success());
}

#[test]
fn the_matrix_over_a_wire_1() {
    isolated(&[], |lab| part(lab, 0));
}

#[test]
fn the_matrix_over_a_wire_2() {
    isolated(&[], |lab| part(lab, 1));
}

#[test]
fn the_matrix_over_a_wire_3() {
    isolated(&[], |lab| part(lab, 2));
}

#[test]
fn the_matrix_over_a_wire_4() {
    isolated(&[], |lab| part(lab, 3));
}

/// D16: a message that is larger than the buffer, in one frame and in fragments, comes before an
/// offer that fits.
#[test]
fn d16_a_packet_larger_than_the_buffer_is_dropped_whole() {
    isolated(&[], |lab| {
        let w = world(lab);
        for (net, interface) in [(&w.home, "eth0"), (&w.isp, "lan")] {
            net.ip(&["link", "set", interface, "mtu", "9000"]);
        }
        let answer = |message: &Message| {
            let asked = Asked {
                request: message.opts().has_msg_type(MessageType::Request),
                before: 0,
                xid: message.xid(),
                mac: message.chaddr().try_into().unwrap(),
                server: server_of(message),
            };
            let good = (CASES[0].answer)(&asked).remove(0);
            // The same message with another address and a tail of well formed options.
            let large = |len: usize| {
                let mut bytes = good[..good.len() - 1].to_vec();
                bytes[19] = 99;
                while bytes.len() < len {
                    bytes.extend([224, 250]);
                    bytes.extend([0xab; 250]);
                }
                bytes
            };
            vec![large(5000), large(60_000), large(8000), good]
        };
        let mode = Mode::Custom(Custom(Box::new(answer)));
        let server = Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap();
        let client = native(&w, &["-v"]);
        wait_ip("192.0.2.50");
        assert!(client.log().contains("dropping a packet larger than the buffer"), "{}", client.log());
        assert_eq!(server.count(MessageType::Discover), 1);
        holds_for("the lease stays", Duration::from_millis(300), || field("ip").as_deref() == Some("192.0.2.50"));
    });
}
