//! One test per rule of the sink, and random walks.

use super::*;
use crate::rng::Rng;

const SECOND: Duration = Duration::from_secs(1);

fn record(ip: &str) -> RecordChange {
    RecordChange::Publish(Record::new().with("if", "x0").with("ip", ip))
}

fn news(event: &'static str) -> Event {
    Event::News(News { event: Some(event), env: Vec::new(), record: RecordChange::Keep })
}

fn of_record(change: &RecordChange) -> Event {
    Event::News(News::of_record(change.clone()))
}

fn run(event: &'static str) -> Action {
    Action::Run { event, env: Vec::new() }
}

fn log(text: &str) -> Action {
    Action::Log(text.to_owned())
}

fn script() -> Sink {
    Sink::new().with_script("prog".to_owned())
}

fn place() -> Sink {
    Sink::new().with_record("/d/x.ipconf".to_owned(), "fw".to_owned())
}

fn failed(why: &str, lasts: bool) -> Event {
    Event::Written(Written::Failed { why: why.to_owned(), lasts })
}

fn untold(unheard: bool) -> Event {
    Event::Told(Told::Failed { why: "no runsv".to_owned(), unheard })
}

#[test]
fn programs_run_in_order_and_a_newer_event_of_the_same_kind_replaces_the_waiting_one() {
    let mut sink = script();
    let mut step = |event| sink.step(Duration::ZERO, event);
    assert_eq!(step(news("bound")), [run("bound")]);
    for event in ["renew", "renew", "deconfig"] {
        assert_eq!(step(news(event)), []);
    }
    let ended = |event, code| Action::Ended(Ended { event, code });
    assert_eq!(step(Event::Ended(Outcome::Code(0))), [ended("bound", Some(0)), run("renew")]);
    assert_eq!(step(Event::Ended(Outcome::Code(3))), [ended("renew", Some(3)), run("deconfig")]);
    let killed = [log("prog was killed by signal 9"), ended("deconfig", None)];
    assert_eq!(step(Event::Ended(Outcome::Signal(9))), killed);
    assert!(sink.is_idle() && !sink.is_lost() && sink.deadline().is_none());
}

#[test]
fn a_program_that_cannot_be_run_costs_its_own_event_alone() {
    let why = || "No such file".to_owned();
    for (outcome, line) in [
        (Outcome::NotStarted(why()), "can't execute 'prog': No such file"),
        (Outcome::Refused, "'prog' is not run with these variables"),
        (Outcome::NotAsked(why()), "can't have 'prog' run: No such file"),
    ] {
        let mut sink = script();
        sink.step(SECOND, news("bound"));
        sink.step(SECOND, news("renew"));
        let ended = Action::Ended(Ended { event: "bound", code: None });
        assert_eq!(sink.step(SECOND, Event::Ended(outcome)), [log(line), ended, run("renew")]);
    }
}

#[test]
fn a_runner_that_is_gone_is_noticed_also_while_nothing_runs() {
    for events in [&[][..], &["bound", "renew"]] {
        let mut sink = script();
        for event in events {
            sink.step(SECOND, news(event));
        }
        let ended = Ended { event: events.first().copied().unwrap_or_default(), code: None };
        assert_eq!(sink.step(SECOND, Event::Ended(Outcome::RunnerGone)), [Action::Ended(ended)]);
        assert!(sink.is_lost() && sink.is_idle());
        assert_eq!(sink.step(SECOND, news("deconfig")), []);
    }
}

#[test]
fn the_newest_news_stay_when_a_program_is_too_slow() {
    const NAMES: [&str; MAX_QUEUE + 2] =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r"];
    let mut sink = script();
    let said: Vec<_> = NAMES.iter().flat_map(|name| sink.step(SECOND, news(name))).collect();
    assert_eq!(said, [run("a"), log("prog is too slow: dropping an event")]);
    let next = sink.step(SECOND, Event::Ended(Outcome::Code(0)));
    assert_eq!(next.last(), Some(&run("c")), "b was dropped");
}

#[test]
fn fw_is_told_after_the_write_of_what_has_changed_and_of_the_first_one_always() {
    let mut sink = place();
    let mut change = |change: RecordChange, changed| {
        assert_eq!(sink.step(SECOND, of_record(&change)), [Action::Record(change)]);
        let tell = sink.step(SECOND, Event::Written(Written::Done { changed })) == [Action::Tell];
        sink.step(SECOND, Event::Told(Told::Done));
        tell
    };
    assert!(change(record("192.0.2.1"), false), "the predecessor wrote it");
    assert!(!change(record("192.0.2.1"), false));
    assert!(change(record("192.0.2.2"), true));
    assert!(change(RecordChange::Withdraw, true));
    assert!(!change(RecordChange::Withdraw, false));
    assert_eq!(sink.step(SECOND, of_record(&RecordChange::Keep)), []);
    let mut sink = place();
    sink.step(SECOND, of_record(&RecordChange::Withdraw));
    assert_eq!(sink.step(SECOND, Event::Written(Written::Done { changed: false })), [], "it was never there");
}

#[test]
fn a_full_disk_is_tried_again_more_and_more_rarely_and_the_newest_is_written() {
    let mut sink = place();
    sink.step(Duration::ZERO, of_record(&record("192.0.2.1")));
    let said = sink.step(Duration::ZERO, failed("No space left", false));
    assert_eq!(said, [log("unable to write /d/x.ipconf: No space left: trying again")]);
    let mut pauses = Vec::new();
    let mut now = Duration::ZERO;
    for _ in 0..8 {
        let at = sink.deadline().unwrap();
        assert_eq!(sink.step(at - Duration::from_millis(1), Event::Timer), [], "not yet");
        assert_eq!(sink.step(at, Event::Timer), [Action::Record(record("192.0.2.1"))]);
        assert_eq!(sink.step(at, failed("No space left", false)), [], "said once");
        pauses.push((at - now).as_secs());
        now = at;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
    assert_eq!(sink.step(now, of_record(&record("192.0.2.2"))), [Action::Record(record("192.0.2.2"))]);
    let done = sink.step(now, Event::Written(Written::Done { changed: true }));
    assert_eq!(done, [log("/d/x.ipconf is written"), Action::Tell]);
    sink.step(now, Event::Told(Told::Done));
    assert_eq!(sink.deadline(), None, "nothing is left to do");
}

#[test]
fn what_cannot_succeed_is_named_once_and_not_tried_until_there_are_news() {
    let mut sink = place();
    sink.step(SECOND, of_record(&record("192.0.2.1")));
    let said = sink.step(SECOND, failed("Permission denied", true));
    assert_eq!(said, [log("unable to write /d/x.ipconf: Permission denied")]);
    assert_eq!(sink.deadline(), None);
    assert_eq!(sink.step(SECOND * 9, Event::Timer), []);
    assert_eq!(sink.step(SECOND * 9, of_record(&record("192.0.2.2"))), [Action::Record(record("192.0.2.2"))]);
    assert_eq!(sink.step(SECOND * 9, failed("Permission denied", true)), [], "said already");
    sink.step(SECOND * 9, of_record(&RecordChange::Withdraw));
    let said = sink.step(SECOND * 9, failed("Permission denied", true));
    assert_eq!(said, [log("unable to remove /d/x.ipconf: Permission denied")]);
    sink.step(SECOND * 9, of_record(&record("192.0.2.3")));
    let said = sink.step(SECOND * 9, Event::Written(Written::Done { changed: true }));
    assert_eq!(said, [log("/d/x.ipconf is written"), Action::Tell]);
}

#[test]
fn a_service_without_a_supervisor_is_told_again_for_five_seconds() {
    let mut sink = place();
    sink.step(Duration::ZERO, of_record(&record("192.0.2.1")));
    assert_eq!(sink.step(Duration::ZERO, Event::Written(Written::Done { changed: true })), [Action::Tell]);
    let mut said = sink.step(Duration::ZERO, untold(true));
    let mut now = Duration::ZERO;
    while let Some(at) = sink.deadline() {
        now = at;
        assert!(said.is_empty() && sink.step(now, Event::Timer) == [Action::Tell]);
        said = sink.step(now, untold(true));
    }
    assert_eq!(said, [log("published, but cannot notify fw: no runsv")]);
    assert_eq!(now, Duration::from_millis(5100));
    // The next record is told anew; the line is not said again until telling has worked.
    for (told, want) in [(untold(false), 0), (Event::Told(Told::Done), 0), (untold(false), 1)] {
        sink.step(now, of_record(&record("192.0.2.2")));
        sink.step(now, Event::Written(Written::Done { changed: true }));
        assert_eq!(sink.step(now, told).len(), want);
        assert_eq!(sink.deadline(), None);
    }
}

#[test]
fn one_telling_at_a_time_however_fast_the_records_change() {
    let mut sink = place();
    for n in 1..20 {
        sink.step(SECOND, of_record(&record(&format!("192.0.2.{n}"))));
        assert_eq!(sink.step(SECOND, Event::Written(Written::Done { changed: true })), [Action::Tell]);
        sink.step(SECOND, untold(true));
        assert_eq!(sink.deadline(), Some(SECOND + FIRST_TELLING));
    }
}

#[test]
fn the_two_kinds_do_not_disturb_each_other() {
    let mut sink = place().with_script("prog".to_owned());
    let both = News { event: Some("config"), env: Vec::new(), record: record("192.0.2.1") };
    let actions = sink.step(SECOND, Event::News(both));
    assert_eq!(actions, [Action::Record(record("192.0.2.1")), run("config")], "the record first");
    sink.step(SECOND, failed("No space left", false));
    let ended = Action::Ended(Ended { event: "config", code: Some(0) });
    assert_eq!(sink.step(SECOND, Event::Ended(Outcome::Code(0))), [ended]);
    assert_eq!(sink.step(SECOND, news("deconfig")), [run("deconfig")]);
    assert_eq!(sink.deadline(), Some(SECOND * 2));
}

/// Whatever happens in whatever order: one program at a time, a bounded queue, never an unwritten
/// newest record without a reason that lasts or a deadline, and nothing is due when all is done.
#[test]
fn random_walks() {
    for seed in 0..300 {
        let mut rng = Rng::seeded(seed);
        let mut sink = place().with_script("prog".to_owned());
        let (mut now, mut running, mut newest, mut written) = (Duration::ZERO, 0, RecordChange::Keep, true);
        for _ in 0..200 {
            now += Duration::from_millis(u64::from(rng.next_u32() % 3000));
            let mut events = VecDeque::from([match rng.next_u32() % 4 {
                0 if running > 0 => Event::Ended(Outcome::Code(0)),
                1 => {
                    newest = record(&rng.next_u32().to_string());
                    of_record(&newest)
                }
                2 => news(["bound", "renew", "deconfig"][(rng.next_u32() % 3) as usize]),
                _ => Event::Timer,
            }]);
            let timer = events[0] == Event::Timer;
            running -= i32::from(matches!(events[0], Event::Ended(_)));
            while let Some(event) = events.pop_front() {
                for action in sink.step(now, event) {
                    match action {
                        Action::Run { .. } => running += 1,
                        Action::Record(change) => {
                            assert_eq!(change, newest);
                            let good = rng.next_u32().is_multiple_of(2);
                            written = good;
                            events.push_back(match good {
                                true => Event::Written(Written::Done { changed: true }),
                                false => failed("x", false),
                            });
                        }
                        Action::Tell => events.push_back(match rng.next_u32() % 2 {
                            0 => Event::Told(Told::Done),
                            _ => untold(true),
                        }),
                        Action::Ended(_) | Action::Log(_) => {}
                    }
                }
            }
            assert!((0..=1).contains(&running));
            assert_eq!(sink.is_idle(), running == 0);
            assert!(written || sink.deadline().is_some());
            assert!(sink.deadline().is_none_or(|at| at <= now + LONGEST_PAUSE && (!timer || at > now)));
            assert!(sink.script.as_ref().unwrap().queue.len() <= MAX_QUEUE);
        }
    }
}
