//! Every state with every event in one table; then the rules that take more than one step.

use super::*;
use netd_core::acd::DEFEND_INTERVAL;
use netd_core::wire::arp::Operation;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEW_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// Of another interface of ours.
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const KNOWN_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 9);
const T0: Duration = Duration::from_secs(1000);

fn config() -> Config {
    Config {
        interface: "eth1".into(),
        mac: MAC,
        network: LINK_LOCAL,
        known: vec![KNOWN_IP],
        resume: None,
        quit: false,
        yields: true,
    }
}

fn machine(config: Config) -> Ipv4ll {
    Ipv4ll::new(config, Rng::seeded(1))
}

/// Addresses as the kernel may tell them: KNOWN_IP here, perhaps beside a routable one; KNOWN_IP on
/// these other interfaces.
fn told(routable: bool, elsewhere: &[&str]) -> Event {
    let elsewhere = elsewhere.iter().map(|name| ((*name).to_owned(), KNOWN_IP)).collect();
    let own = if routable { vec![Ipv4Addr::new(192, 0, 2, 1), KNOWN_IP] } else { vec![KNOWN_IP] };
    Event::Addresses(Addresses { own, elsewhere, macs: vec![MAC, OWN_MAC] })
}

fn used_by_other() -> Event {
    Event::Arp(Arp::announcement(OTHER, KNOWN_IP))
}

/// Steps by the clock until `done`; the time at which it was.
fn run(machine: &mut Ipv4ll, mut now: Duration, done: impl Fn(&Action) -> bool) -> (Duration, Vec<Action>) {
    let mut all = Vec::new();
    for _ in 0..100 {
        now = machine.deadline().expect("a deadline").max(now);
        all.extend(machine.step(now, Event::Timer));
        if all.iter().any(&done) {
            return (now, all);
        }
    }
    panic!("not in 100 steps: {all:?}");
}

fn usable(machine: &mut Ipv4ll, now: Duration) -> (Duration, Ipv4Addr) {
    let (at, done) = run(machine, now, |a| matches!(a, Action::Config(_)));
    let ip = done.iter().find_map(|a| if let Action::Config(ip) = a { Some(*ip) } else { None });
    (at, ip.unwrap())
}

/// A machine in the named state at T0, with KNOWN_IP wherever it has an address.
fn in_state(name: &str) -> Ipv4ll {
    let mut m = machine(if name == "resuming" { Config { resume: Some(KNOWN_IP), ..config() } } else { config() });
    let begin = |m: &mut Ipv4ll| m.step(T0 - Duration::from_secs(100), Event::Link(true));
    match name {
        "no link" | "resuming" => {}
        "yielding" => {
            m.step(T0, told(true, &[]));
            begin(&mut m);
        }
        "released" => {
            m.step(T0, Event::Release);
            begin(&mut m);
        }
        "waiting" => {
            begin(&mut m);
            m.step(T0, Event::Unsent);
        }
        "probing" => {
            begin(&mut m);
        }
        "bound" => {
            begin(&mut m);
            usable(&mut m, T0 - Duration::from_secs(50));
            m.step(T0 - Duration::from_secs(2), told(false, &[]));
            m.step(T0 - Duration::from_secs(1), Event::Timer);
        }
        "ended" => {
            m.step(T0, Event::Stop(0));
        }
        _ => panic!("{name}"),
    }
    m
}

/// State and actions in short: `k` stands for KNOWN_IP, `n` for any other address.
fn shown(m: &Ipv4ll, actions: &[Action]) -> String {
    let ip = |ip: &Ipv4Addr| if *ip == KNOWN_IP { 'k' } else { 'n' };
    let state = match &m.state {
        State::Idle => "idle".to_owned(),
        State::Waiting => "waiting".to_owned(),
        State::Probing { candidate, .. } => format!("probing {}", ip(&candidate.ip)),
        State::Bound { acd, .. } => format!("bound {}", ip(&acd.ip())),
        State::Ended => "ended".to_owned(),
    };
    let words = actions.iter().filter_map(|action| match action {
        Action::Send(arp) if arp.sender_ip.is_unspecified() => Some(format!("probe {}", ip(&arp.target_ip))),
        Action::Send(arp) => Some(format!("announce {}", ip(&arp.sender_ip))),
        Action::Watch(Some(i)) => Some(format!("watch {}", ip(i))),
        Action::Watch(None) => Some("deaf".into()),
        Action::Config(i) => Some(format!("config {}", ip(i))),
        Action::Deconfig(i) => Some(format!("deconfig {}", ip(i))),
        Action::Remember(i) => Some(format!("remember {}", ip(i))),
        Action::Exit(code) => Some(format!("exit {code}")),
        Action::Log(_) | Action::Debug(_) => None,
    });
    let words: Vec<String> = words.collect();
    format!("{state}: {}", words.join(", ")).trim_end().to_owned()
}

#[test]
fn every_state_answers_every_event() {
    let events: [(&str, Event); 15] = [
        ("timer", Event::Timer),
        ("link up", Event::Link(true)),
        ("link down", Event::Link(false)),
        ("conflict", used_by_other()),
        ("others' talk", Event::Arp(Arp::announcement(OTHER, Ipv4Addr::new(169, 254, 1, 1)))),
        ("unsent", Event::Unsent),
        ("mac", Event::Mac(NEW_MAC)),
        ("routable", told(true, &[])),
        ("nothing special", told(false, &[])),
        ("removed", Event::Addresses(Addresses::default())),
        ("on eth0 too", told(false, &["eth0"])),
        ("on eth2 too", told(false, &["eth2"])),
        ("check", Event::Check),
        ("release", Event::Release),
        ("stop", Event::Stop(0)),
    ];
    let table: [(&str, [&str; 15]); 8] = [
        (
            "no link",
            [
                "idle:",
                "probing k: watch k",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "ended: exit 0",
            ],
        ),
        (
            "resuming",
            [
                "idle:",
                "bound k: watch k, announce k, config k, remember k",
                "idle: deconfig k",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "ended: deconfig k, exit 0",
            ],
        ),
        (
            "yielding",
            [
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "probing k: watch k",
                "probing k: watch k",
                "probing n: watch n",
                "probing n: watch n",
                "idle:",
                "idle:",
                "ended: exit 0",
            ],
        ),
        (
            "released",
            [
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "idle:",
                "probing k: watch k",
                "idle:",
                "ended: exit 0",
            ],
        ),
        (
            "waiting",
            [
                "waiting:",
                "waiting:",
                "idle:",
                "waiting:",
                "waiting:",
                "waiting:",
                "waiting:",
                "idle:",
                "waiting:",
                "waiting:",
                "waiting:",
                "waiting:",
                "waiting:",
                "idle:",
                "ended: exit 0",
            ],
        ),
        (
            "probing",
            [
                "probing k: probe k",
                "probing k:",
                "idle: deaf",
                "probing n: watch n",
                // A step at or after the deadline does what is due, whatever it was called for.
                "probing k: probe k",
                "waiting: deaf",
                "probing k:",
                "idle: deaf",
                "probing k:",
                "probing k:",
                "probing n: watch n",
                "probing n: watch n",
                "probing k:",
                "idle: deaf",
                "ended: deaf, exit 0",
            ],
        ),
        (
            "bound",
            [
                "bound k:",
                "bound k:",
                "idle: deaf, deconfig k",
                "bound k: announce k",
                "bound k:",
                "bound k:",
                "bound k: announce k",
                "idle: deaf, deconfig k",
                "bound k:",
                "probing k: deconfig k",
                "probing n: watch n, deconfig k",
                "bound k:",
                "probing k: deconfig k",
                "idle: deaf, deconfig k",
                "ended: deaf, deconfig k, exit 0",
            ],
        ),
        ("ended", ["ended:"; 15]),
    ];
    for (state, answers) in table {
        for ((name, event), want) in events.iter().zip(answers) {
            let mut m = in_state(state);
            let done = m.step(T0, event.clone());
            assert_eq!(shown(&m, &done), want, "{state}, {name}: {done:?}");
            assert!(m.deadline().is_none_or(|at| at > T0) || state == "probing", "{state}, {name}: busy");
        }
    }
}

#[test]
fn a_new_address_takes_4_to_5_seconds_and_a_known_one_1_to_1_and_a_half() {
    for seed in 0..500 {
        let mut m = Ipv4ll::new(Config { known: vec![], ..config() }, Rng::seeded(seed));
        m.step(T0, Event::Link(true));
        let (at, first) = usable(&mut m, T0);
        assert!((Duration::from_secs(4)..=Duration::from_secs(5)).contains(&(at - T0)), "{:?}", at - T0);
        // The link comes back: the same address, at once.
        m.step(at, Event::Link(false));
        m.step(at, Event::Link(true));
        let (again, second) = usable(&mut m, at);
        assert_eq!(first, second);
        assert!((Duration::from_secs(1)..Duration::from_millis(1400)).contains(&(again - at)), "{:?}", again - at);
    }
}

#[test]
fn the_times_are_within_the_ranges_of_the_rfc() {
    // RFC 3927 section 9.
    assert!(NEW.probe_wait <= acd::PROBE_WAIT && NEW.probe_num == acd::PROBE_NUM);
    assert!(NEW.probe_min >= acd::PROBE_MIN && NEW.probe_max <= acd::PROBE_MAX);
    assert_eq!((NEW.announce_wait, NEW.announce_num), (acd::ANNOUNCE_WAIT, acd::ANNOUNCE_NUM));
    assert_eq!((NEW.announce_interval, NEW.defend), (acd::ANNOUNCE_INTERVAL, true));
}

#[test]
fn an_address_that_was_just_lost_is_not_drawn_again() {
    let drawn = machine(config()).draw();
    let mut m = machine(Config { known: vec![drawn], ..config() });
    m.step(T0, Event::Link(true));
    assert_eq!(m.watched, Some(drawn));
    m.step(T0, Event::Arp(Arp::announcement(OTHER, drawn)));
    assert!(m.watched.is_some_and(|ip| ip != drawn));
}

#[test]
fn addresses_follow_from_the_mac_and_are_never_reserved_ones() {
    let draw = |mac| {
        let mut m = machine(Config { mac, ..config() });
        (0..5000).map(|_| m.draw()).collect::<Vec<_>>()
    };
    assert_eq!(draw(MAC), draw(MAC));
    assert_ne!(draw(MAC)[0], draw(OTHER)[0]);
    assert!(draw(MAC).iter().all(|ip| config().may_choose(*ip)));
    let edges = [(0, 255, false), (1, 0, true), (254, 255, true), (255, 0, false)];
    for (c, d, want) in edges {
        assert_eq!(config().may_choose(Ipv4Addr::new(169, 254, c, d)), want, "{c}.{d}");
    }
    let mut m = machine(Config { network: Ipv4Addr::new(10, 77, 0, 0), ..config() });
    assert!((0..100).all(|_| m.draw().octets()[..2] == [10, 77]));
}

#[test]
fn a_link_that_flaps_while_an_address_is_probed_for_does_not_use_up_the_sequence() {
    let mut m = machine(Config { known: vec![], ..config() });
    m.step(T0, Event::Link(true));
    let first = m.watched;
    assert!(first.is_some());
    for _ in 0..10 {
        m.step(T0, Event::Link(false));
        m.step(T0, Event::Link(true));
        assert_eq!(m.watched, first);
    }
    // Still a new one: no search for it has come to its end.
    assert!(usable(&mut m, T0).0 - T0 >= Duration::from_secs(4));
}

#[test]
fn in_use_it_is_defended_once_in_ten_seconds_and_then_given_up_for_another() {
    let mut m = in_state("bound");
    let done = m.step(T0, used_by_other());
    assert!(done.contains(&Action::Log("02:00:00:00:00:02 used 169.254.7.9: defended".into())), "{done:?}");
    let later = T0 + DEFEND_INTERVAL;
    let done = m.step(later, used_by_other());
    assert_eq!(shown(&m, &done), "bound k: announce k");
    let done = m.step(later + Duration::from_secs(9), used_by_other());
    assert_eq!(shown(&m, &done), "probing n: watch n, deconfig k");
    assert!(
        usable(&mut m, later + Duration::from_secs(9)).0 - later > Duration::from_secs(9 + 4),
        "looked for in full"
    );
}

#[test]
fn ten_conflicts_and_then_one_address_a_minute() {
    let mut m = machine(config());
    m.step(T0, Event::Link(true));
    let (mut now, mut starts) = (T0, vec![T0]);
    for _ in 0..20 {
        let ip = m.watched.expect("an address is probed for");
        let reply = Arp { operation: Operation::Reply, ..Arp::announcement(OTHER, ip) };
        m.step(now, Event::Arp(reply));
        if let State::Waiting = m.state {
            now = m.deadline().unwrap();
            m.step(now, Event::Timer);
        }
        starts.push(now);
    }
    let gaps: Vec<u64> = starts.windows(2).map(|w| (w[1] - w[0]).as_secs()).collect();
    assert_eq!(gaps[..9], [0; 9]);
    assert_eq!(gaps[9..], [60; 11]);

    // Neither a wish that comes and goes nor a question shortens it; another network does.
    let reply = Arp::announcement(OTHER, m.watched.unwrap());
    m.step(now, Event::Arp(reply));
    for event in [Event::Release, Event::Check, told(true, &[]), told(false, &[]), Event::Check] {
        m.step(now, event);
    }
    assert_eq!(shown(&m, &[]), "waiting:");
    m.step(now, Event::Link(false));
    m.step(now, Event::Link(true));
    assert!(shown(&m, &[]).starts_with("probing"));
}

#[test]
fn peace_for_a_minute_pays_for_the_conflicts() {
    let mut m = machine(config());
    m.step(T0, Event::Link(true));
    for _ in 0..9 {
        let arp = Arp::announcement(OTHER, m.watched.unwrap());
        m.step(T0, Event::Arp(arp));
    }
    let (at, ip) = usable(&mut m, T0);
    let later = at + RATE_LIMIT_INTERVAL;
    for _ in 0..2 {
        m.step(later, Event::Arp(Arp::announcement(OTHER, ip)));
    }
    assert!(shown(&m, &[]).starts_with("probing"), "the first conflict, not the tenth");
}

#[test]
fn q_ends_with_the_address_and_leaves_it() {
    let mut m = machine(Config { quit: true, ..config() });
    m.step(T0, Event::Link(true));
    let (at, done) = run(&mut m, T0, |a| matches!(a, Action::Exit(_)));
    assert!(done.iter().any(|a| matches!(a, Action::Config(_))));
    assert!(done.contains(&Action::Exit(0)));
    assert_eq!(m.step(at, Event::Stop(0)), []);
    assert_eq!(m.deadline(), None);
}

#[test]
fn without_yielding_a_routable_address_changes_nothing() {
    let mut m = machine(Config { yields: false, ..config() });
    m.step(T0, told(true, &[]));
    m.step(T0, Event::Link(true));
    let (at, _) = usable(&mut m, T0);
    let done = m.step(at, told(true, &[]));
    assert_eq!(shown(&m, &done), "bound k:");
    assert_eq!(m.address(), Some(KNOWN_IP));
}

#[test]
fn our_own_other_interface_is_a_rival_while_we_probe_and_no_stranger_afterwards() {
    let own_talk = || Event::Arp(Arp::announcement(OWN_MAC, KNOWN_IP));
    let mut m = in_state("probing");
    m.step(T0 - Duration::from_secs(99), told(false, &[]));
    m.step(T0 - Duration::from_secs(99), own_talk());
    assert!(shown(&m, &[]).starts_with("probing n"));
    let mut m = in_state("bound");
    for _ in 0..3 {
        assert_eq!(m.step(T0, own_talk()), []);
    }
}

#[test]
fn of_two_interfaces_with_one_address_exactly_one_gives_way() {
    // Both have it already: the name decides.
    let mut machines = ["eth1", "eth2"].map(|interface| machine(Config { interface: interface.into(), ..config() }));
    for (m, other) in machines.iter_mut().zip(["eth2", "eth1"]) {
        m.step(T0, Event::Link(true));
        let (at, _) = usable(m, T0);
        m.step(at, told(false, &[other]));
    }
    assert_eq!(machines.each_ref().map(Ipv4ll::address), [Some(KNOWN_IP), None]);
}
