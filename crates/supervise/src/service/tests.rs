//! The machine against its table (tests/table.rs), against stories (stories.rs), and against random
//! sequences (walk.rs).

use super::*;

mod stories;
mod table;
mod walk;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Long after any start: no second is due.
const LATER: Duration = Duration::from_secs(1000);

fn command(letter: char) -> Event {
    Event::Command(Command::from_letter(u8::try_from(letter).unwrap()).unwrap())
}

/// Everything that one step does, as short words.
fn words(actions: &[Action]) -> String {
    let word = |action: &Action| match action {
        Action::Run => "run".to_owned(),
        Action::Finish { code, status } => format!("finish({code},{status})"),
        Action::Control(letter) => format!("control/{}", char::from(*letter)),
        Action::Signal(command) => format!("sig-{}", char::from(command.letter())),
        Action::Stamp => "stamp".to_owned(),
        Action::Save => "save".to_owned(),
        Action::TimedOut => "timed-out".to_owned(),
        Action::GaveUp => "gave-up".to_owned(),
        Action::PutOff => "put-off".to_owned(),
        Action::AskInput => "ask-input".to_owned(),
        Action::InputHeld => "input-held".to_owned(),
        Action::Done => "done".to_owned(),
    };
    actions.iter().map(word).collect::<Vec<_>>().join(" ")
}

const ENDED: Event = Event::Ended(Exit::Code(0));
