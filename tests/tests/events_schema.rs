//! Every event of --status-fd, as it happens, is what srt-common/events.schema.json says, and the schema has no other.

use srt_tests::host::{Events, Greeter};
use srt_tests::pages::workspace;
use srt_tests::processes::{child_named, kill};
use srt_tests::talk::Talk;
use srt_tests::{Scratch, Who, both, chain_with, run, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

const OPTIONS: [&str; 4] = ["--status-fd", "9", "--keep-fd", "9"];

/// Reads lines of JSON from a file; says of each `ok`, if it is valid, or `no`, and `stage event` or what is wrong.
const VALIDATE: &str = "import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for line in open(sys.argv[2]):
    event = json.loads(line)
    wrong = [error.message for error in validator.iter_errors(event)]
    if wrong: print('no', json.dumps([line, *wrong]))
    else: print('ok', event['stage'], event['event'])";

/// `stage event` of each line, or what is wrong with it. In one interpreter: what it imports is half a second's work.
fn validated(scratch: &Scratch, text: &str) -> Vec<Result<String, String>> {
    let schema = workspace().join("srt-common/events.schema.json");
    let file = scratch.file("lines", text);
    let ran = run(Who::Root.command("/usr/bin/python3").args(["-c", VALIDATE]).args([schema, file]));
    let verdict = |line: &str| match line.split_once(' ') {
        Some(("ok", event)) => Ok(event.to_owned()),
        Some(("no", why)) => Err(why.to_owned()),
        _ => panic!("{line:?} in {ran:#?}"),
    };
    let verdicts: Vec<_> = ran.ok().out.lines().map(verdict).collect();
    assert_eq!(verdicts.len(), text.lines().count(), "{ran:#?}");
    verdicts
}

/// `stage event` of each that the schema has.
fn in_schema() -> BTreeSet<String> {
    let script = "import json, sys
words = lambda of: of.get('enum', [of.get('const')])
for one in json.load(open(sys.argv[1]))['$defs'].values():
    fields = one.get('properties', {})
    for stage in words(fields.get('stage', {})):
        for event in words(fields.get('event', {})):
            if stage: print(stage, event)";
    let schema = workspace().join("srt-common/events.schema.json");
    let ran = run(Who::Root.command("/usr/bin/python3").args(["-c", script]).arg(schema));
    ran.ok().out.lines().map(str::to_owned).collect()
}

fn has_option(option: &str) -> bool {
    let help = run(Who::Root.command("srt-ns").arg("--help")).ok().out.clone();
    help.split_whitespace().any(|word| word == option)
}

/// What a command tells from its start to its end.
fn of_run(scratch: &Scratch, command: &mut Command) -> String {
    let events = Events::of(command, scratch);
    run(command);
    events.text()
}

/// A command that waits for a line, and what happens meanwhile, until the event is told.
fn of_event(scratch: &Scratch, mut command: Command, event: &str, happens: impl FnOnce(&mut Talk)) -> String {
    let events = Events::of(&mut command, scratch);
    let mut talk = Talk::over_pipes(command.args(["--", "sh", "-c", "echo up; read -r _"]));
    assert_eq!(talk.line(), "up");
    happens(&mut talk);
    wait_until(event, || events.text().contains(event));
    talk.send("\n");
    talk.end();
    events.text()
}

/// srt-ns with one option.
fn with(who: Who, option: &str, value: &str) -> Command {
    let mut command = who.command("srt-ns");
    command.args(["--status-fd", "9", option, value]);
    command
}

/// Connects, and waits until the relay has closed the connection again.
fn refused(socket: &Path) {
    let mut client = UnixStream::connect(socket).expect("connect");
    let _reset = client.read(&mut [0]);
}

/// srt-relay from `listen` to an address.
fn of_relay(who: Who, scratch: &Scratch, connect: &str, before: impl FnOnce()) -> String {
    let listen = scratch.join("listen.sock");
    let mut command = who.command("srt-relay");
    command.args(["--ready-fd", "1", "--status-fd", "9", &format!("unix:{}", listen.display()), connect]);
    let events = Events::of(&mut command, scratch);
    let mut talk = Talk::over_pipes(&mut command);
    assert_eq!(talk.line(), "ready");
    before();
    refused(&listen);
    wait_until("an event", || events.text().ends_with('\n'));
    talk.signal(libc::SIGTERM);
    talk.end();
    events.text()
}

both! {
    fn every_event_of_every_tool_is_of_the_schema_and_the_schema_has_no_other(who) {
        let scratch = &who.scratch();
        let mut text = String::new();
        // started, exec and exited, with a code and a signal.
        for script in ["exit 3", "kill -9 $$"] {
            let command = &mut chain_with(who, scratch.path(), &OPTIONS);
            text += &of_run(scratch, command.args(["sh", "-c", script]));
        }
        // A command that SIGTERM does not end; and one that it does, but not all that is in its group.
        let left = "trap 'exit 5' TERM; sh -c \"trap '' TERM; echo up; exec sleep 1000\" & wait";
        for (after, script, code, told) in [
            ("0.01", "trap '' TERM; echo up; while :; do sleep 1; done", 137, "\"reason\":\"kill-after\""),
            ("1", left, 5, "\"code\":5}"),
        ] {
            let mut command = with(who, "--kill-after", after);
            let events = Events::of(&mut command, scratch);
            let mut talk = Talk::over_pipes(command.args(["--", "sh", "-c", script]));
            assert_eq!(talk.line(), "up");
            talk.signal(libc::SIGTERM);
            assert_eq!(talk.end().0, code);
            assert!(events.text().contains(told), "{}", events.text());
            text += &events.text();
        }
        // failed, of each stage, with all fields and with few.
        let status = "--status-fd 9 --keep-fd 9";
        for words in [
            format!("srt-ns {status} --nope -- true"),
            format!("srt-ns {status} -- /missing"),
            format!("srt-ns {status} --relay 80=/missing -- true"),
            format!("srt-ns {status} --placeholder /missing/it -- true"),
            format!("srt-mount {status} --bind /missing / -- true"),
            format!("srt-ns {status} -- srt-mount {status} --bind /missing / -- true"),
            format!("srt-ns {status} -- srt-mount {status} --ro-bind / / -- /"),
            format!("srt-seccomp {status} --allow nope -- true"),
            format!("srt-seccomp {status} --load /missing -- true"),
            "srt-relay --status-fd 9 unix:/missing/listen tcp:127.0.0.1:1".to_owned(),
        ] {
            // Alone an ordinary user's srt-mount gets no further than its namespace.
            let reaches = who == Who::Root || !words.starts_with("srt-mount ");
            let mut words = words.split(' ');
            let command = &mut who.command(words.next().expect("a tool"));
            let told = of_run(scratch, command.args(words.clone()));
            assert!(told.contains("\"event\":\"failed\""), "{words:?}: {told}");
            // The path that a message is about is a field of its own.
            if words.clone().any(|word| ["/missing", "80=/missing", "/missing/it"].contains(&word)) && reaches {
                assert!(told.contains("\"path\":\"/missing\""), "{words:?}: {told}");
            }
            text += &told;
        }
        // What happens to helpers while the command runs.
        let socket = scratch.join("p.sock");
        let relay = format!("4000={}", socket.display());
        {
            let _greeter = Greeter::start(&socket, "hello");
            text += &of_event(scratch, with(who, "--relay", &relay), "relay-lost", |talk| {
                kill(child_named(talk.pid(), "srt-relay"), libc::SIGKILL);
            });
        }
        let published = scratch.join("published.sock");
        let publish = format!("{}=4000", published.display());
        let told = of_event(scratch, with(who, "--publish", &publish), "connect-failed", |_| refused(&published));
        assert!(told.contains("cannot connect: Connection refused"), "{told}");
        text += &told;
        let told = of_event(scratch, with(who, "--publish", &publish), "relay-lost", |talk| {
            kill(child_named(talk.pid(), "srt-relay"), libc::SIGKILL);
        });
        assert!(told.contains(&publish) && told.contains("srt-relay ended: "), "{told}");
        text += &told;
        text += &of_event(scratch, with(who, "--sidecar", "exec sleep 1000"), "sidecar-ended", |talk| {
            kill(child_named(talk.pid(), "sleep"), libc::SIGKILL);
        });
        // srt-relay alone.
        text += &of_relay(who, scratch, "tcp:127.0.0.1:1", || ());
        fs::remove_file(&socket).expect("unlink");
        let greeter = Greeter::start(&socket, "hello");
        text += &of_relay(who, scratch, &format!("unix:{}", socket.display()), || drop(greeter));
        // What a build may not have yet.
        let mut expected = in_schema();
        if has_option("--check") {
            text += &of_run(scratch, who.command("srt-ns").args(["--check", "--status-fd", "9"]));
        } else {
            expected.remove("srt-ns check");
        }
        if has_option("--placeholder") {
            let place = scratch.join("place");
            let command = &mut with(who, "--placeholder", place.to_str().expect("UTF-8"));
            text += &of_run(scratch, command.args(["--", "rm"]).arg(&place));
        } else {
            expected.remove("srt-ns placeholder-lost");
        }
        let seen: BTreeSet<String> =
            validated(scratch, &text).into_iter().map(|verdict| verdict.unwrap_or_else(|why| panic!("{why}"))).collect();
        assert_eq!(seen, expected);
    }

    fn what_no_tool_tells_is_not_of_the_schema(who) {
        let scratch = who.scratch();
        let event = "{\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":0}";
        let wrong = [
            "{\"stage\":\"srt-ns\",\"event\":\"exited\"}",
            "{\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":0,\"signal\":9}",
            "{\"stage\":\"srt-mount\",\"event\":\"exited\",\"code\":0}",
            "{\"stage\":\"srt-ns\",\"event\":\"exited\",\"code\":0,\"other\":0}",
            "{\"stage\":\"srt-ns\",\"event\":\"other\"}",
            "{\"event\":\"exec\"}",
        ];
        let verdicts = validated(&scratch, &format!("{event}\n{}\n", wrong.join("\n")));
        assert_eq!(verdicts[0].as_deref(), Ok("srt-ns exited"));
        for (wrong, verdict) in wrong.iter().zip(&verdicts[1..]) {
            verdict.as_ref().expect_err(wrong);
        }
    }
}
