//! Completions do in a real shell, at a Tab, what they are for: options, paths, and the program after `--` as such.

use srt_tests::pages::workspace;
use srt_tests::talk::Talk;
use srt_tests::{Scratch, both, has, skip};
use std::fs;
use std::path::Path;

/// What a line is after a Tab at its end.
const LINES: [(&str, &str); 6] = [
    ("srt-ns --outlive-p", "<srt-ns><--outlive-parent>"),
    ("srt-mount --bind / ./a-fi", "<srt-mount><--bind></><./a-file>"),
    ("srt-seccomp -- demo alph", "<srt-seccomp><--><demo><alphaword>"),
    ("srt-ns --relay 80=/p.sock -- demo alph", "<srt-ns><--relay><80=/p.sock><--><demo><alphaword>"),
    (
        "srt-ns --uid 1 -- srt-mount --bind / / -- srt-seccomp -- demo alph",
        "<srt-ns><--uid><1><--><srt-mount><--bind></></><--><srt-seccomp><--><demo><alphaword>",
    ),
    ("srt-connect --auth", "<srt-connect><--auth-fd>"),
];

/// Types each line and a Tab, then puts printf(1) in front of it.
fn type_lines(who: srt_tests::Who, scratch: &Scratch, shell: &[&str], lines: &[(&str, &str)]) {
    scratch.file("a-file", "");
    let mut command = who.command(shell[0]);
    command.args(&shell[1..]).current_dir(scratch.path()).env("TERM", "dumb").env("HOME", scratch.path());
    command.env("ZDOTDIR", scratch.path()).env("XDG_CONFIG_HOME", scratch.path()).env("LC_ALL", "C.UTF-8");
    let mut talk = Talk::on_terminal(who, &mut command);
    talk.expect("up>");
    for (line, expected) in lines {
        talk.send(&format!("{line}\t\u{1}printf '<%s>' \u{5}; echo\n"));
        talk.expect(expected);
    }
    talk.send("exit\n");
    talk.end();
}

/// Each tool's file of that name, where the user can read it.
fn files(scratch: &Scratch, name: impl Fn(&str) -> String) -> Vec<String> {
    let copy = |tool: &&str| {
        let file = name(tool);
        let from: &Path = &workspace().join(tool).join("completions").join(&file);
        scratch.file(&file, fs::read(from).expect("a completion")).to_str().expect("UTF-8").to_owned()
    };
    srt_tests::manual::TOOLS.iter().map(copy).collect()
}

both! {
    fn bash_completes_options_paths_and_the_program(who) {
        if !Path::new("/usr/share/bash-completion/bash_completion").exists() {
            skip!("no bash-completion");
        }
        let scratch = &who.scratch();
        let sources: String = files(scratch, |tool| format!("{tool}.bash")).iter().map(|file| format!(". {file}\n")).collect();
        let rc = format!(
            "PS1='up> '\n. /usr/share/bash-completion/bash_completion\n{sources}complete -W alphaword demo\n\
             bind 'set enable-bracketed-paste off'\n"
        );
        let rc = scratch.file("rc", rc);
        type_lines(who, scratch, &["bash", "--noprofile", "--rcfile", rc.to_str().expect("UTF-8"), "-i"], &LINES);
    }

    fn zsh_completes_options_paths_and_the_program(who) {
        if !has("zsh") {
            skip!("no zsh");
        }
        let scratch = &who.scratch();
        files(scratch, |tool| format!("_{tool}"));
        let rc = format!(
            "PS1='up> '\nunsetopt zle_bracketed_paste prompt_sp\nfpath=({} $fpath)\nautoload -U compinit\ncompinit -u -D\nbindkey -e\n\
             zstyle ':completion:*' insert-tab false\n_demo() {{ compadd alphaword }}\ncompdef _demo demo\n",
            scratch.text()
        );
        scratch.file(".zshrc", rc);
        type_lines(who, scratch, &["zsh", "-d", "-i"], &LINES);
    }

    fn fish_completes_options_paths_and_the_program(who) {
        if !has("fish") {
            skip!("no fish");
        }
        let scratch = &who.scratch();
        let sources: String = files(scratch, |tool| format!("{tool}.fish")).iter().map(|file| format!("source {file}\n")).collect();
        for (line, expected) in LINES {
            let last = expected.trim_end_matches('>').rsplit('<').next().expect("a word");
            let script = format!("{sources}complete -c demo -a alphaword\ncomplete -C '{line}'");
            let mut command = who.command("fish");
            command.args(["--no-config", "-c", &script]).current_dir(scratch.path()).env("HOME", scratch.path());
            scratch.file("a-file", "");
            let ran = srt_tests::run(&mut command);
            let found: Vec<&str> = ran.ok().out.lines().filter_map(|line| line.split('\t').next()).collect();
            assert_eq!(found, [last], "{line}: {ran:#?}");
        }
    }
}
