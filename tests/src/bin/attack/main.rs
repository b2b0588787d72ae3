//! The attacker: native code that tries one thing and says how far it got. It runs outside, as the positive control,
//! and as the command of a sandbox. It is not shipped.
//!
//!     attack NAME [words…]         prints `succeeded: …` and exits 0, or `refused: …` and exits 7
//!     attack each 'NAME words' …   one attack after the other, each in a process of its own; exits 0
//!     attack all 'NAME words' …    the same in this process, for many that kill nobody
//!
//! Anything else (a panic: 101) means that the attack itself is broken, which is never taken for a refusal.

mod files;
mod identity;
mod keys;
mod mounts;
mod processes;
mod setid;
mod sockets;
mod sys;
mod terminal;

use std::io;
use std::process::{Command, ExitCode};

/// What an attack that got through has to say.
pub type Outcome = io::Result<String>;

/// The exit code of an attack that the kernel refused.
const REFUSED: u8 = 7;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some((&"each", attacks)) = words.split_first() {
        return each(attacks);
    }
    if let Some((&"all", attacks)) = words.split_first() {
        for words in attacks {
            println!("{words}: {}", said(&attack(&words.split_whitespace().collect::<Vec<_>>())));
        }
        return ExitCode::SUCCESS;
    }
    let outcome = attack(&words);
    println!("{}", said(&outcome));
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Ok(said) => format!("succeeded: {}", said.trim_end().replace('\n', " ")),
        Err(error) => format!("refused: {error}"),
    }
}

/// One line for each attack: its words, a colon, and what it printed.
fn each(attacks: &[&str]) -> ExitCode {
    let own = std::env::args_os().next().expect("argv[0]");
    for words in attacks {
        let ran = Command::new(&own).args(words.split_whitespace()).output().expect("run one attack");
        let said = String::from_utf8_lossy(&ran.stdout);
        match said.lines().last() {
            Some(line) => println!("{words}: {line}"),
            None => println!("{words}: ended: {} {}", ran.status, String::from_utf8_lossy(&ran.stderr)),
        }
    }
    ExitCode::SUCCESS
}

/// Runs one attack.
pub fn attack(words: &[&str]) -> Outcome {
    let families = [
        files::attack as fn(&[&str]) -> Option<Outcome>,
        mounts::attack,
        processes::attack,
        setid::attack,
        sockets::attack,
        terminal::attack,
        keys::attack,
        identity::attack,
    ];
    families
        .iter()
        .find_map(|family| family(words))
        .unwrap_or_else(|| panic!("there is no attack {words:?} with so many words"))
}

/// A number in decimal or, with 0x, in hexadecimal.
pub fn number(word: &str) -> u64 {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse::<i64>().map(|number| number as u64),
    }
    .unwrap_or_else(|error| panic!("{word}: {error}"))
}
