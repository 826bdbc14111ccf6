//! What runsv(8) promises, one story each.

use super::table::service_in;
use super::*;
use applet::control::RunState;

/// A shell that answers at once: no control scripts, and a ./finish or none.
struct Shell {
    service: Service,
    now: Duration,
    finish: bool,
    next_pid: u32,
    said: Vec<Action>,
}

impl Shell {
    fn new(want: Want) -> Shell {
        let mut shell =
            Shell { service: Service::new(Role::Main, want), now: LATER, finish: false, next_pid: 1, said: vec![] };
        shell.tell(Event::Tick);
        shell
    }

    /// The actions that matter to the process, as short words.
    fn tell(&mut self, event: Event) -> String {
        self.said.clear();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.service.step(self.now, event) {
                events.extend(self.answer(action));
                if !matches!(action, Action::Save | Action::Stamp | Action::PutOff | Action::Control(_)) {
                    self.said.push(action);
                }
            }
        }
        words(&self.said)
    }

    fn answer(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Finish { .. } if !self.finish => Some(Event::NoFinish),
            Action::Run | Action::Finish { .. } => {
                self.next_pid += 1;
                Some(Event::Started { pid: self.next_pid })
            }
            Action::Control(_) => Some(Event::Control { handled: false }),
            Action::Signal(_)
            | Action::TimedOut
            | Action::AskInput
            | Action::InputHeld
            | Action::GaveUp
            | Action::PutOff
            | Action::Stamp
            | Action::Save
            | Action::Done => None,
        }
    }

    fn after(&mut self, time: Duration) -> &mut Shell {
        self.now += time;
        self
    }
}

#[test]
fn a_service_that_lived_a_second_starts_again_at_once() {
    let mut shell = Shell::new(Want::Up);
    assert_eq!(shell.after(ms(1000)).tell(ENDED), "finish(0,0) run");
}

#[test]
fn one_that_ended_by_itself_too_soon_waits_a_second_and_obeys_meanwhile() {
    let mut shell = Shell::new(Want::Up);
    assert_eq!(shell.after(ms(999)).tell(ENDED), "finish(0,0)");
    assert_eq!(shell.service.deadline(), Some(shell.now + THROTTLE));
    assert_eq!(shell.after(ms(999)).tell(Event::Tick), "");
    let mut told = Shell { service: shell.service.clone(), said: vec![], ..shell };
    assert_eq!(shell.after(ms(1)).tell(Event::Tick), "run");
    assert_eq!(told.tell(command('d')), "");
    assert_eq!((told.service.deadline(), told.service.stat().as_str()), (None, "down\n"));
    assert_eq!(told.tell(command('u')), "run");
}

#[test]
fn down_is_a_level_and_term_is_none() {
    let mut shell = Shell::new(Want::Up);
    assert_eq!(shell.tell(command('d')), "sig-t sig-c");
    assert_eq!(shell.tell(command('d')), "");
    assert_eq!(shell.tell(command('t')), "sig-t sig-c");
    // Stopped since, it cannot obey.
    assert_eq!(shell.tell(command('p')), "sig-p");
    assert_eq!(shell.tell(command('d')), "sig-t sig-c");
    shell.tell(command('c'));
    assert_eq!(shell.tell(command('d')), "");
    // Up in between is another level.
    shell.tell(command('u'));
    assert_eq!(shell.tell(command('d')), "sig-t sig-c");
    shell.tell(command('x'));
    assert_eq!(shell.tell(command('d')), "sig-t sig-c");
}

#[test]
fn the_time_of_finish_counts_as_life() {
    let mut shell = Shell::new(Want::Up);
    shell.finish = true;
    assert_eq!(shell.after(ms(10)).tell(ENDED), "finish(0,0)");
    assert_eq!(shell.after(ms(1000)).tell(ENDED), "run");
}

#[test]
fn any_number_of_u_during_a_one_shot_run_gives_exactly_one_more_at_once() {
    let mut shell = Shell::new(Want::Down);
    assert_eq!(shell.tell(command('u')), "run");
    shell.tell(command('o'));
    for _ in 0..5 {
        assert_eq!(shell.after(ms(1)).tell(command('u')), "");
    }
    assert_eq!(shell.tell(ENDED), "finish(0,0) run");
    shell.tell(command('o'));
    assert_eq!(shell.after(ms(1)).tell(ENDED), "finish(0,0)");
    assert_eq!((shell.service.stat().as_str(), shell.service.deadline()), ("down\n", None));
}

#[test]
fn only_what_was_to_run_once_and_was_not_told_to_end_has_ended_as_such() {
    for (letters, once) in
        [("o", true), ("uo", true), ("", false), ("d", false), ("od", false), ("ot", false), ("oh", false)]
    {
        let mut shell = Shell::new(Want::Up);
        letters.chars().for_each(|c| drop(shell.tell(command(c))));
        shell.tell(ENDED);
        assert_eq!(shell.service.once(), once, "{letters}");
    }
}

#[test]
fn a_u_during_finish_is_not_lost() {
    let mut shell = Shell::new(Want::Down);
    shell.finish = true;
    shell.tell(command('o'));
    shell.tell(ENDED);
    assert_eq!(shell.service.stat(), "finish, want down\n");
    assert_eq!(shell.tell(command('u')), "");
    assert_eq!(shell.tell(ENDED), "run");
}

#[test]
fn k_then_u_before_the_end_is_known_starts_no_second_one() {
    let mut shell = Shell::new(Want::Up);
    assert_eq!(shell.tell(command('k')), "sig-k");
    assert_eq!(shell.tell(command('u')), "");
    assert_eq!(shell.tell(Event::Ended(Exit::Signal { signal: 9, core: false })), "finish(-1,9) run");
}

#[test]
fn tcu_is_obeyed_in_order() {
    let mut shell = Shell::new(Want::Up);
    let said: Vec<String> = "tcu".chars().map(|c| shell.tell(command(c))).collect();
    assert_eq!(said, ["sig-t", "sig-c", ""]);
    assert_eq!(shell.service.stat(), "run, got TERM\n");
    assert_eq!(shell.tell(Event::Ended(Exit::Signal { signal: 15, core: false })), "finish(-1,15) run");
    assert_eq!(shell.service.stat(), "run\n");
}

#[test]
fn stat_names_what_is_wanted() {
    let mut shell = Shell::new(Want::Up);
    shell.tell(command('p'));
    assert_eq!(shell.service.stat(), "run, paused\n");
    assert_eq!(shell.tell(command('d')), "sig-t sig-c");
    assert_eq!(shell.service.stat(), "run, paused, got TERM, want down\n");
    shell.tell(command('x'));
    assert_eq!(shell.service.stat(), "run, paused, got TERM, want exit\n");
    assert_eq!(shell.tell(ENDED), "finish(0,0) done");
    assert!(shell.service.done());
}

#[test]
fn x_can_be_taken_back_while_the_process_lives() {
    let mut shell = Shell::new(Want::Up);
    shell.tell(command('x'));
    shell.tell(command('u'));
    assert_eq!(shell.tell(ENDED), "finish(0,0) run");
}

#[test]
fn after_a_term_to_the_supervisor_nothing_keeps_the_service() {
    for letter in ['u', 'o', 'd'] {
        let mut shell = Shell::new(Want::Up);
        assert_eq!(shell.tell(Event::Terminate), "sig-t sig-c");
        shell.tell(command(letter));
        assert_eq!(shell.service.stat(), "run, got TERM, want exit\n", "{letter}");
        assert_eq!(shell.tell(ENDED), "finish(0,0) done", "{letter}");
        assert!(shell.service.done());
    }
}

#[test]
fn commands_wait_for_a_control_script_in_their_order() {
    let mut service = service_in("running");
    let told: Vec<String> = "thd".chars().map(|c| words(&service.step(LATER, command(c)))).collect();
    assert_eq!(told, ["control/t", "", ""]);
    assert_eq!(service.queued(), 2);
    // control/t did the work: no TERM.
    assert_eq!(words(&service.step(LATER, Event::Control { handled: true })), "control/h");
    assert_eq!(words(&service.step(LATER, Event::Control { handled: false })), "sig-h save put-off control/t");
    assert_eq!(words(&service.step(LATER, Event::Control { handled: false })), "sig-t save sig-c control/d");
    assert_eq!(words(&service.step(LATER, Event::Control { handled: false })), "");
    assert_eq!(service.stat(), "run, got TERM, want down\n");
}

#[test]
fn a_signal_never_goes_to_a_process_that_came_after_the_script_was_started() {
    let mut service = service_in("running");
    service.step(LATER, command('t'));
    assert_eq!(words(&service.step(LATER, ENDED)), "save");
    assert_eq!(words(&service.step(LATER, Event::Control { handled: false })), "finish(0,0)");
    assert_eq!(words(&service.step(LATER, Event::NoFinish)), "stamp save control/u");
}

#[test]
fn a_run_that_cannot_be_executed_is_tried_ever_more_rarely_until_it_can() {
    let mut service = service_in("starting");
    let mut now = LATER;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        service.step(now, Event::ExecFailed);
        service.step(now, Event::NoFinish);
        let at = service.deadline().unwrap();
        pauses.push((at - now).as_secs());
        now = at;
        assert_eq!(words(&service.step(now, Event::Tick)), "control/u");
        service.step(now, Event::Control { handled: false });
    }
    assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
    service.step(now, Event::Started { pid: 1 });
    // And runit's rule is the rule again.
    service.step(now + THROTTLE, ENDED);
    assert_eq!(words(&service.step(now + THROTTLE, Event::NoFinish)), "stamp save control/u");
    service.step(now, Event::Control { handled: false });
    service.step(now, Event::ExecFailed);
    service.step(now, Event::NoFinish);
    assert_eq!(service.deadline(), Some(now + THROTTLE));
}

#[test]
fn what_does_not_end_after_term_is_killed_in_time() {
    let mut shell = Shell::new(Want::Up);
    shell.tell(Event::Settings(Settings { timeout_kill: Some(ms(300)), ..Settings::default() }));
    assert_eq!(shell.tell(command('d')), "sig-t sig-c");
    let due = shell.now + ms(300);
    assert_eq!(shell.service.deadline(), Some(due));
    // Another d does not put it off.
    shell.after(ms(200)).tell(command('d'));
    assert_eq!(shell.service.deadline(), Some(due));
    assert_eq!(shell.after(ms(99)).tell(Event::Tick), "");
    assert_eq!(shell.after(ms(1)).tell(Event::Tick), "timed-out");
    assert_eq!((shell.tell(Event::Tick).as_str(), shell.service.deadline()), ("", None));
    assert_eq!(shell.tell(Event::Ended(Exit::Signal { signal: 9, core: false })), "finish(-1,9)");
    // Other signals have no such time, and a new process begins anew.
    shell.tell(command('u'));
    shell.tell(command('i'));
    assert_eq!(shell.service.deadline(), None);
}

#[test]
fn a_script_that_did_it_for_term_gets_the_same_time() {
    let mut service = service_in("running");
    service.step(LATER, Event::Settings(Settings { timeout_kill: Some(ms(300)), ..Settings::default() }));
    service.step(LATER, command('t'));
    service.step(LATER, Event::Control { handled: true });
    // It was asked to go on, so nothing must end.
    assert_eq!(service.deadline(), None);
    service.step(LATER, command('d'));
    service.step(LATER, Event::Control { handled: true });
    assert_eq!(service.deadline(), Some(LATER + ms(300)));
}

#[test]
fn a_finish_that_hangs_is_killed_in_time() {
    let mut shell = Shell::new(Want::Up);
    shell.finish = true;
    shell.tell(Event::Settings(Settings { timeout_finish: Some(ms(50)), ..Settings::default() }));
    shell.after(THROTTLE).tell(ENDED);
    assert_eq!(shell.service.deadline(), Some(shell.now + ms(50)));
    assert_eq!(shell.after(ms(50)).tell(Event::Tick), "timed-out");
    assert_eq!(shell.tell(Event::Ended(Exit::Signal { signal: 9, core: false })), "run");
}

#[test]
fn finish_may_say_that_it_shall_stay_down_where_that_was_allowed() {
    for allowed in [false, true] {
        let mut shell = Shell::new(Want::Up);
        shell.finish = true;
        shell.tell(Event::Settings(Settings { permanent_failure: allowed, ..Settings::default() }));
        shell.after(THROTTLE).tell(ENDED);
        let said = shell.tell(Event::Ended(Exit::Code(PERMANENT_FAILURE)));
        assert_eq!(said, if allowed { "gave-up" } else { "run" });
        assert_eq!(shell.service.want(), if allowed { Want::Down } else { Want::Up });
        // It is told as any other.
        assert_eq!(shell.tell(command('u')), if allowed { "run" } else { "" });
    }
}

#[test]
fn readiness_is_the_running_process_s() {
    let mut shell = Shell::new(Want::Up);
    assert!(!shell.service.ready());
    shell.tell(Event::Ready);
    assert!(shell.service.ready());
    shell.after(THROTTLE).tell(ENDED);
    assert!(!shell.service.ready());
}

#[test]
fn deaths_are_the_ends_that_nobody_asked_for() {
    let mut shell = Shell::new(Want::Up);
    shell.after(THROTTLE).tell(ENDED);
    assert_eq!((shell.service.deaths(), shell.service.last_exit()), (1, Some(Exit::Code(0))));
    shell.tell(command('t'));
    shell.tell(Event::Ended(Exit::Signal { signal: 15, core: false }));
    assert_eq!(shell.service.deaths(), 1);
    shell.tell(command('o'));
    shell.tell(ENDED);
    assert_eq!(shell.service.deaths(), 1);
}

#[test]
fn finish_learns_how_it_ended() {
    for (exit, args) in [
        (Exit::Code(0), (0, 0)),
        (Exit::Code(111), (111, 0)),
        (Exit::Signal { signal: 15, core: false }, (-1, 15)),
        (Exit::Signal { signal: 11, core: true }, (-1, 139)),
        (Exit::Unknown, (-1, 0)),
    ] {
        assert_eq!(exit.finish_args(), args);
    }
}

#[test]
fn the_log_has_no_scripts_no_finish_and_ends_by_the_end_of_its_input() {
    let mut log = Service::new(Role::Log, Want::Up);
    assert_eq!(words(&log.step(LATER, Event::Tick)), "run");
    log.step(LATER, Event::Started { pid: 3 });
    assert_eq!(words(&log.step(LATER, command('x'))), "");
    assert_eq!(words(&log.step(LATER + THROTTLE, ENDED)), "stamp save run");
    log.step(LATER, Event::Started { pid: 4 });
    assert_eq!(words(&log.step(LATER, Event::InputEnded { held: false })), "save");
    assert_eq!(log.stat(), "run, want exit\n");
    assert_eq!(words(&log.step(LATER, command('u'))), "");
    assert_eq!(words(&log.step(LATER, command('d'))), "save sig-t save sig-c");
    assert_eq!(words(&log.step(LATER, ENDED)), "stamp save done");
}

#[test]
fn a_log_whose_pipe_another_process_holds_is_told_to_end_and_then_killed() {
    let running = || {
        let mut log = Service::new(Role::Log, Want::Up);
        log.step(LATER, Event::Tick);
        log.step(LATER, Event::Started { pid: 3 });
        assert_eq!(words(&log.step(LATER, Event::InputEnded { held: true })), "save");
        assert_eq!(log.deadline(), Some(LATER + HELD));
        assert_eq!(words(&log.step(LATER + HELD, Event::Tick)), "ask-input");
        log
    };
    let (held, free) = (Event::InputEnded { held: true }, Event::InputEnded { held: false });
    let (first, second) = (LATER + HELD, LATER + HELD + HELD);
    let mut log = running();
    assert_eq!(words(&log.step(first, held)), "input-held sig-t save sig-c");
    assert_eq!(log.deadline(), Some(second));
    assert_eq!(words(&log.step(second, Event::Tick)), "ask-input");
    assert_eq!(words(&log.step(second, held)), "timed-out");
    assert_eq!((log.deadline(), words(&log.step(second, ENDED)).as_str()), (None, "stamp save done"));
    // Its pipe has ended meanwhile: it may take its time.
    let mut log = running();
    assert_eq!((words(&log.step(first, free)).as_str(), log.deadline()), ("", None));
    // timeout-kill is longer than ours, and counts.
    let mut log = running();
    let timeout_kill = Some(Duration::from_secs(20));
    log.step(first, Event::Settings(Settings { timeout_kill, ..Settings::default() }));
    log.step(first, held);
    assert_eq!(log.deadline(), timeout_kill.map(|time| first + time));
}

#[test]
fn an_adopted_process_is_steered_as_if_it_were_a_child() {
    let found = Found::Run { pid: 5, started: LATER };
    let mut service = Service::adopt(Role::Main, Want::Up, false, false, found);
    assert_eq!(words(&service.step(LATER, Event::Tick)), "");
    assert_eq!(service.running(), (RunState::Run, Some(5)));
    assert_eq!(words(&service.step(LATER + THROTTLE, Event::Ended(Exit::Unknown))), "finish(-1,0)");
    let mut gone = Service::adopt(Role::Main, Want::Up, false, false, Found::RunEnded);
    assert_eq!(words(&gone.step(LATER, Event::Tick)), "finish(-1,0)");
    assert_eq!(words(&gone.step(LATER, Event::NoFinish)), "stamp save control/u");
    let mut down = Service::adopt(Role::Main, Want::Down, false, false, Found::Nothing);
    assert_eq!(words(&down.step(LATER, Event::Tick)), "");
}

#[test]
fn a_service_at_rest_runs_at_the_moment_that_its_file_names_and_a_file_that_stays_counts_again() {
    let mut shell = Shell::new(Want::Down);
    let at = |shell: &Shell, after| Event::Again(Some(shell.now + after));
    let event = at(&shell, ms(60_000));
    assert_eq!((shell.tell(event), shell.service.deadline()), (String::new(), Some(LATER + ms(60_000))));
    // The moment has come, and the file is read before the start: it may have gone.
    let mut gone = Shell { service: shell.service.clone(), said: vec![], ..shell };
    assert_eq!(gone.after(ms(60_000)).tell(Event::Tick), "");
    assert_eq!((gone.tell(Event::Again(None)), gone.service.deadline()), (String::new(), None));
    assert_eq!(shell.after(ms(60_000)).tell(Event::Tick), "");
    let event = at(&shell, ms(0));
    assert_eq!(shell.tell(event), "run");
    assert_eq!((shell.service.want(), shell.service.deadline()), (Want::Down, None));
    // The run left the file as it was: once more, after runit's second if it ended so soon.
    assert_eq!(shell.after(ms(200)).tell(ENDED), "finish(0,0)");
    let event = at(&shell, ms(0));
    assert_eq!((shell.tell(event), shell.service.deadline()), (String::new(), Some(shell.now + THROTTLE)));
    let event = at(shell.after(THROTTLE), ms(0));
    assert_eq!(shell.tell(event), "run");
}

#[test]
fn the_file_counts_for_nothing_while_the_service_is_wanted_up_and_its_supervisor_told_to_exit() {
    let mut shell = Shell::new(Want::Up);
    assert_eq!(shell.tell(ENDED), "finish(0,0)");
    assert_eq!(shell.tell(Event::Again(Some(shell.now))), "");
    assert_eq!(shell.service.deadline(), Some(shell.now + THROTTLE));
    shell.after(THROTTLE).tell(Event::Tick);
    shell.tell(Event::Terminate);
    assert_eq!(shell.tell(ENDED), "finish(0,0) done");
    assert_eq!(shell.tell(Event::Again(Some(shell.now))), "");
}
