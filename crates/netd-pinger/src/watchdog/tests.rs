//! Every state with every event, in tables; ARP from the wire as bytes.

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const LEASE: Lease = Lease { ip: std::net::Ipv4Addr::new(192, 0, 2, 100), router: Some(ROUTER) };
const ROUTER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 1);
const WIRE: Wire = Wire { mac: Some(MAC) };
const POINT_TO_POINT: Wire = Wire { mac: None };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config(targets: usize) -> Config {
    Config {
        interval: ms(1000),
        retry: ms(500),
        timeout: ms(500),
        bad: 3,
        of: 5,
        hold_down: ms(10_000),
        restart: Some(ms(30_000)),
        status: ms(10_000),
        targets,
    }
}

fn reply() -> Arp {
    Arp { operation: Operation::Reply, sender_mac: ROUTER_MAC, sender_ip: ROUTER, target_mac: MAC, target_ip: LEASE.ip }
}

/// The machine, its clock, and what it did.
struct Bench {
    dog: Watchdog,
    now: Duration,
    done: Vec<Action>,
}

impl Bench {
    fn new(config: Config, found: Option<Verdict>) -> Bench {
        let dog = Watchdog::new(config, Rng::seeded(1), found, ms(0));
        Bench { dog, now: ms(0), done: Vec::new() }
    }

    /// With a link and a lease.
    fn on(config: Config, found: Option<Verdict>, wire: Wire) -> Bench {
        let mut bench = Bench::new(config, found);
        bench.event(Event::Link(Some(wire)));
        bench.event(Event::Lease(Some(LEASE)));
        bench
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let actions = self.dog.step(self.now, event);
        self.done.extend(actions.iter().copied());
        actions
    }

    /// To the next deadline.
    fn tick(&mut self) -> Vec<Action> {
        self.now = self.now.max(self.dog.deadline().unwrap());
        self.event(Event::Tick)
    }

    fn is_asking(&self) -> bool {
        matches!(self.dog.phase, Phase::Asking { .. })
    }

    /// One round, answered as said: by the router, by the targets.
    fn round(&mut self, router: bool, targets: &[bool]) {
        while !self.is_asking() {
            self.tick();
        }
        let round = self.dog.round;
        self.now += ms(1);
        if router {
            match self.dog.wire.and_then(|w| w.mac) {
                Some(_) => self.event(Event::Arp(reply())),
                None => self.event(Event::Answer { who: Who::Router, round }),
            };
        }
        for n in (0..targets.len()).filter(|n| targets[*n]) {
            self.event(Event::Answer { who: Who::Target(n), round });
        }
        while self.is_asking() {
            self.tick();
        }
    }

    fn rounds(&mut self, count: usize, router: bool, targets: &[bool]) {
        (0..count).for_each(|_| self.round(router, targets));
    }

    /// Rounds until the state's word is `word`.
    fn until(&mut self, word: &str, router: bool, targets: &[bool]) {
        for _ in 0..200 {
            if self.dog.word().word() == word {
                return;
            }
            self.round(router, targets);
        }
        panic!("never {word}: {:?}", self.dog);
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |a: &Action| if let Action::Publish(v) = a { Some(*v) } else { None };
        self.done.iter().filter_map(verdict).collect()
    }

    fn restarts(&self) -> usize {
        self.done.iter().filter(|a| **a == Action::Restart).count()
    }
}

#[test]
fn nothing_is_asked_without_a_link_and_a_lease() {
    let none = Lease { router: None, ..LEASE };
    let table: [(usize, &[Event], bool); 7] = [
        (0, &[], false),
        (0, &[Event::Link(Some(WIRE))], false),
        (0, &[Event::Lease(Some(LEASE))], false),
        (0, &[Event::Link(Some(WIRE)), Event::Lease(Some(LEASE))], true),
        (0, &[Event::Link(Some(WIRE)), Event::Lease(Some(none))], false),
        (1, &[Event::Link(Some(WIRE)), Event::Lease(Some(none))], true),
        (0, &[Event::Link(Some(WIRE)), Event::Lease(Some(LEASE)), Event::Link(None)], false),
    ];
    for (targets, events, asks) in table {
        let mut bench = Bench::new(config(targets), None);
        events.iter().for_each(|e| drop(bench.event(*e)));
        assert_eq!(bench.dog.deadline().is_some(), asks, "{events:?}");
        assert_eq!(bench.dog.word().word() == "idle", !asks, "{events:?}");
        // And whatever comes then changes nothing.
        for event in [Event::Tick, Event::Arp(reply()), Event::Answer { who: Who::Target(7), round: 1 }] {
            assert!(asks || bench.event(event).iter().all(|a| *a == Action::Status), "{events:?} {event:?}");
        }
    }
}

#[test]
fn the_router_is_asked_by_arp_first_straight_when_it_is_known() {
    let mut bench = Bench::on(config(1), None, WIRE);
    let message = Arp::request(MAC, LEASE.ip, ROUTER);
    let first = [Action::Arp { message, to: BROADCAST }, Action::Probe { who: Who::Target(0), round: 1 }];
    assert_eq!(bench.done[1..3], first, "{:?}", bench.done);
    bench.round(true, &[true]);
    assert_eq!(bench.tick()[..1], [Action::Arp { message, to: ROUTER_MAC }]);
    // No answer: ICMP, in the same round; then the station that has become the router.
    assert_eq!(bench.tick(), [Action::Probe { who: Who::Router, round: 2 }]);
    bench.tick();
    assert_eq!(bench.tick()[..1], [Action::Arp { message, to: BROADCAST }]);
}

#[test]
fn a_router_that_answers_only_one_of_the_two_is_there() {
    let mut bench = Bench::on(config(0), None, WIRE);
    for _ in 0..10 {
        while bench.tick() != [Action::Probe { who: Who::Router, round: bench.dog.round }] {}
        let round = bench.dog.round;
        bench.event(Event::Answer { who: Who::Router, round });
    }
    bench.rounds(20, true, &[]);
    assert_eq!(bench.verdicts(), [Verdict::Good]);
}

#[test]
fn without_arp_the_router_is_asked_by_icmp_alone() {
    let mut bench = Bench::on(config(0), None, POINT_TO_POINT);
    bench.event(Event::Arp(reply()));
    bench.until("good", true, &[]);
    bench.until("bad", false, &[]);
    assert!(!bench.done.iter().any(|a| matches!(a, Action::Arp { .. })));
    assert_eq!(bench.verdicts(), [Verdict::Good, Verdict::Bad]);
}

#[test]
fn only_the_routers_own_answer_to_us_counts() {
    let other = [2, 0, 0, 0, 0, 7];
    let elsewhere = std::net::Ipv4Addr::new(192, 0, 2, 7);
    let table = [
        (reply(), true),
        (Arp { sender_mac: other, ..reply() }, true),
        (Arp { sender_ip: elsewhere, ..reply() }, false),
        (Arp { target_ip: elsewhere, ..reply() }, false),
        (Arp { target_mac: other, ..reply() }, false),
        (Arp { target_mac: BROADCAST, ..reply() }, false),
        (Arp { sender_mac: MAC, ..reply() }, false),
        (Arp { operation: Operation::Request, ..reply() }, false),
        (Arp::announcement(ROUTER_MAC, ROUTER), false),
        (Arp::probe(ROUTER_MAC, LEASE.ip), false),
    ];
    for (arp, counts) in table {
        // As it comes from the wire.
        let arp = Arp::decode(&arp.encode()).unwrap();
        let mut bench = Bench::on(config(0), None, WIRE);
        bench.now += ms(1);
        bench.event(Event::Arp(arp));
        assert_eq!(bench.verdicts() == [Verdict::Good], counts, "{arp:?}");
    }
}

#[test]
fn k_misses_of_n_make_it_bad() {
    // Rounds, 1 a hit; how many of them until the verdict.
    let table = [
        (1, 1, "10", Some(2)),
        (3, 5, "1000", Some(4)),
        (3, 5, "101010", Some(6)),
        (3, 5, "1001110011", None),
        (3, 3, "10010010010010", None),
        (6, 6, "1000000", Some(7)),
        (3, 5, "000", Some(3)),
        (3, 5, "0010", Some(4)),
    ];
    for (bad, of, rounds, when) in table {
        let mut bench = Bench::on(Config { bad, of, ..config(0) }, None, WIRE);
        let at = rounds.chars().position(|hit| {
            bench.round(hit == '1', &[]);
            bench.dog.word().word() == "bad"
        });
        assert_eq!(at.map(|n| n + 1), when, "{bad}/{of} {rounds}");
    }
}

#[test]
fn a_dead_router_is_known_within_three_seconds_by_default() {
    for seed in 0..50 {
        let mut bench = Bench::on(config(0), None, WIRE);
        bench.dog.rng = Rng::seeded(seed);
        bench.rounds(3, true, &[]);
        let died = bench.now;
        bench.until("bad", false, &[]);
        assert!(bench.now - died < ms(2850), "{:?}", bench.now - died);
    }
}

#[test]
fn the_seeds_sixty_seven_and_five_by_options() {
    let seed = Config {
        interval: ms(67_000),
        retry: ms(5000),
        timeout: ms(1000),
        bad: 6,
        of: 6,
        restart: Some(ms(0)),
        ..config(0)
    };
    let mut bench = Bench::on(seed, None, WIRE);
    bench.round(true, &[]);
    let died = bench.now;
    bench.until("bad", false, &[]);
    let took = (bench.now - died).as_secs();
    // The seed: at most 67 s until the first ping, then five more, 5 s apart.
    assert!((67 + 25..=67 + 25 + 11).contains(&took), "{took}");
    assert_eq!(bench.restarts(), 1);
}

#[test]
fn good_again_only_after_the_hold_down() {
    let mut bench = Bench::on(config(0), None, WIRE);
    bench.until("good", true, &[]);
    bench.until("bad", false, &[]);
    bench.round(true, &[]);
    assert_eq!(bench.dog.word().word(), "recovering");
    let since = bench.now;
    // A single miss is forgiven, a second one soon after is not.
    bench.rounds(4, true, &[]);
    bench.round(false, &[]);
    assert_eq!(bench.dog.word().word(), "recovering");
    bench.rounds(1, true, &[]);
    bench.round(false, &[]);
    assert_eq!(bench.dog.word().word(), "bad");
    assert_eq!(bench.verdicts(), [Verdict::Good, Verdict::Bad]);
    bench.round(true, &[]);
    assert!(bench.now > since);
    let since = bench.now;
    bench.until("good", true, &[]);
    assert!(bench.now - since >= ms(10_000));
    assert_eq!(bench.verdicts(), [Verdict::Good, Verdict::Bad, Verdict::Good]);
    let mut bench = Bench::on(Config { hold_down: ms(0), ..config(0) }, Some(Verdict::Bad), WIRE);
    bench.round(true, &[]);
    assert_eq!(bench.verdicts(), [Verdict::Good], "no hold-down");
}

#[test]
fn one_target_behind_the_router_is_enough_and_none_is_bad_without_a_restart() {
    let mut bench = Bench::on(config(2), None, WIRE);
    bench.rounds(20, true, &[false, true]);
    bench.rounds(20, true, &[true, false]);
    assert_eq!(bench.verdicts(), [Verdict::Good]);
    bench.until("bad", true, &[false, false]);
    assert_eq!(bench.dog.report().cause, Some(Cause::Behind));
    bench.rounds(2000, true, &[false, false]);
    assert_eq!(bench.restarts(), 0);
    // Now the router is gone, too.
    bench.rounds(40, false, &[false, false]);
    assert_eq!((bench.restarts(), bench.dog.report().cause), (1, Some(Cause::Router)));
    // Silent, while what is behind it answers: a strange router, but bad.
    let mut bench = Bench::on(config(1), None, WIRE);
    bench.until("bad", false, &[true]);
}

#[test]
fn services_are_restarted_while_the_router_is_gone_more_and_more_rarely() {
    let mut bench = Bench::on(config(0), None, WIRE);
    bench.until("good", true, &[]);
    bench.until("bad", false, &[]);
    let (begun, mut at) = (bench.now, Vec::new());
    while bench.now < begun + ms(20_000_000) {
        if bench.tick().contains(&Action::Restart) {
            at.push((bench.now - begun).as_secs());
        }
    }
    assert_eq!(at[..8], [30, 90, 210, 450, 930, 1890, 3810, 7410], "{at:?}");
    assert_eq!(at[9] - at[8], 3600);
    // It answers now and then: it is not gone.
    let before = bench.restarts();
    for _ in 0..1000 {
        bench.rounds(2, false, &[]);
        bench.round(true, &[]);
    }
    assert_eq!((bench.restarts(), bench.verdicts().last()), (before, Some(&Verdict::Bad)));
    // Good: the waits begin anew.
    bench.until("good", true, &[]);
    assert_eq!(bench.dog.report().restarts, 0);
    let never = Config { restart: None, ..config(0) };
    let mut bench = Bench::on(never, None, WIRE);
    bench.rounds(5000, false, &[]);
    assert_eq!(bench.restarts(), 0);
}

#[test]
fn a_predecessors_verdict_stays_until_this_one_knows_better() {
    for (found, router, want) in [
        (None, true, &[Verdict::Good][..]),
        (None, false, &[Verdict::Bad]),
        (Some(Verdict::Good), true, &[Verdict::Good]),
        (Some(Verdict::Good), false, &[Verdict::Bad]),
        (Some(Verdict::Bad), false, &[]),
    ] {
        let mut bench = Bench::on(config(0), found, WIRE);
        bench.rounds(10, router, &[]);
        assert_eq!(bench.verdicts(), want, "{found:?} {router}");
    }
    let mut bench = Bench::on(config(0), Some(Verdict::Bad), WIRE);
    bench.round(true, &[]);
    let since = bench.now;
    bench.until("good", true, &[]);
    assert!(bench.now - since >= ms(10_000), "with the hold-down");
}

#[test]
fn an_answer_that_always_comes_late_is_an_answer() {
    let mut bench = Bench::on(config(1), None, WIRE);
    for _ in 0..40 {
        while !bench.is_asking() {
            bench.tick();
        }
        let round = bench.dog.round;
        bench.event(Event::Arp(reply()));
        while bench.is_asking() {
            bench.tick();
        }
        // 600 ms on the way: in the wait after the round, or when the next one has begun.
        bench.now += ms(100);
        bench.event(Event::Answer { who: Who::Target(0), round });
    }
    assert_eq!(bench.verdicts(), [Verdict::Good]);
    assert_eq!(bench.dog.report().targets[0].lost, 0);
}

#[test]
fn another_lease_or_link_begins_anew_and_keeps_the_verdict() {
    let other = Lease { router: Some(std::net::Ipv4Addr::new(192, 0, 2, 2)), ..LEASE };
    for event in [Event::Lease(Some(other)), Event::Lease(None), Event::Link(None)] {
        for (router, verdict) in [(true, Verdict::Good), (false, Verdict::Bad)] {
            let mut bench = Bench::on(config(0), None, WIRE);
            bench.rounds(8, router, &[]);
            assert_eq!(bench.verdicts(), [verdict]);
            let first = bench.dog.round;
            bench.event(event);
            assert_eq!(bench.dog.report().router, Numbers::default(), "{event:?}");
            bench.event(Event::Lease(Some(LEASE)));
            bench.event(Event::Link(Some(WIRE)));
            // An answer to what was asked before says nothing now.
            bench.event(Event::Answer { who: Who::Router, round: first });
            assert_eq!(bench.verdicts(), [verdict], "{event:?}");
            assert!(bench.dog.deadline().is_some_and(|at| at <= bench.now + ms(500)), "at once, but no storm");
        }
    }
    // A renewal changes nothing.
    let mut bench = Bench::on(config(0), None, WIRE);
    bench.round(true, &[]);
    assert_eq!(bench.event(Event::Lease(Some(LEASE))), []);
    assert_eq!(bench.dog.report().router.asked, 1);
    // A recovery has to begin again, a planned restart is off.
    let mut bench = Bench::on(config(0), Some(Verdict::Bad), WIRE);
    bench.round(true, &[]);
    bench.event(Event::Link(None));
    assert_eq!(bench.dog.state, State::Bad { cause: Cause::Found, restart: None });
    assert_eq!(bench.dog.deadline(), None);
}

#[test]
fn the_status_is_written_on_change_and_now_and_then() {
    let mut bench = Bench::on(config(0), None, WIRE);
    bench.until("good", true, &[]);
    let written = |bench: &Bench| bench.done.iter().filter(|a| **a == Action::Status).count();
    let (before, begun) = (written(&bench), bench.now);
    while bench.now < begun + ms(100_000) {
        bench.round(true, &[]);
    }
    assert!((8..=10).contains(&(written(&bench) - before)), "{}", written(&bench) - before);
    let before = written(&bench);
    bench.until("bad", false, &[]);
    assert_eq!(bench.done.last(), Some(&Action::Status));
    assert!((1..=2).contains(&(written(&bench) - before)));
}

#[test]
fn a_metered_uplink_is_asked_rarely_and_soon_again_when_it_is_metered_no_more() {
    let mut bench = Bench::on(config(0), None, WIRE);
    bench.round(true, &[]);
    let metered = Config { interval: ms(30_000), retry: ms(2000), timeout: ms(1000), ..config(0) };
    assert_eq!(bench.event(Event::Pace(metered)), []);
    assert!(bench.dog.deadline().unwrap() < bench.now + ms(1100), "the round that was planned comes");
    bench.round(true, &[]);
    assert!(bench.dog.deadline().unwrap() > bench.now + ms(28_000));
    assert_eq!(bench.dog.word(), UplinkState::Good, "what is known stays");
    bench.event(Event::Pace(config(0)));
    assert!(bench.dog.deadline().unwrap() <= bench.now + ms(1000));
}
