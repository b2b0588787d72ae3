//! What an earlier run has left in what it may write leads no later one astray: no source, destination, socket, overlay
//! layer or published path goes through a link that lies in what the sandbox may write (the kind of CVE-2024-42472). Other
//! links on the way are followed as ever.

use srt_tests::attacks::Sandbox;
use srt_tests::host::Greeter;
use srt_tests::{
    READ_ONLY, Ran, Scratch, Who, both, copy_program, pass_fd, run, run_bwrap, tool, wait_until,
};
use std::fs;
use std::io::{PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;

/// Waits until srt-mount reads the pipe: it has opened all that comes from the host then.
fn reads(writer: &mut PipeWriter) {
    writer.write_all(b"x").expect("write");
    wait_until("srt-mount to read", || {
        let mut unread: libc::c_int = 0;
        // SAFETY: an open descriptor, and room for an int (ioctl_tty(2)).
        assert_eq!(unsafe { libc::ioctl(writer.as_raw_fd(), libc::FIONREAD, &raw mut unread) }, 0);
        unread == 0
    });
}

/// What the two runs share: `work` is writable inside, `secret` is not granted at all.
struct Place {
    who: Who,
    scratch: Scratch,
}

impl Place {
    /// After a first run that has put a link in the place of `work/p`, and some more.
    fn new(who: Who) -> Self {
        let scratch = who.scratch();
        for directory in
            ["work/p/sub", "work/inside/sub", "secret/sub", "secret/up", "secret/wd", "secret/run", "other"]
        {
            scratch.dir(directory);
        }
        scratch.file("secret/sub/file", "secret");
        scratch.file("secret/one", "secret");
        scratch.file("work/inside/file", "inside");
        let place = Self { who, scratch };
        let script = "mv p old && ln -s ../secret p && ln -s ../secret/one link && ln -s inside loop && ln -s ../secret/run/s.sock s.sock";
        run(&mut Sandbox::new(who, &place.path("work")).command(&["sh", "-c", script])).ok();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// A word with the directory in `@`'s place.
    fn words(&self, text: &str) -> Vec<String> {
        text.split_whitespace().map(|word| word.replace('@', self.scratch.text())).collect()
    }

    /// Runs srt-ns with its options and those of srt-mount.
    fn run(&self, ns: &str, mounts: &str, script: &str) -> Ran {
        let mut command = self.who.command("srt-ns");
        command.args(self.words(ns)).args(["--keep-fd", "9", "--", "srt-mount"]).args(READ_ONLY);
        command.args(self.words(mounts)).args(["--chdir", "/", "--", "srt-seccomp", "--"]);
        // A descriptor for --file and its like.
        let data = fs::File::open("/etc/hostname").expect("a file");
        pass_fd(&mut command, data.as_raw_fd(), 9);
        run(command.args(["sh", "-c", script]))
    }

    /// The tool fails, names the link, and the command does not run.
    #[track_caller]
    fn refuses(&self, tool: &str, ns: &str, mounts: &str, link: &str) {
        let ran = self.run(ns, mounts, "echo it ran");
        assert!(self.is_refused(&ran, link), "{ns} {mounts}: {link} is not named, or it ran: {ran:#?}");
        ran.one_clear_error(tool);
    }

    fn is_refused(&self, ran: &Ran, link: &str) -> bool {
        (ran.code, ran.out.as_str()) == (Some(125), "") && ran.err.contains(&self.words(link)[0])
    }
}

/// `--bind W W` and then what leads through `work/p` (→ ../secret), `work/loop` (→ inside) or `work/link` (→ a file).
const REFUSED: [(&str, &str); 24] = [
    // Sources.
    ("--bind @/work @/work --bind @/work/p/sub @/work/p/sub", "@/work/p"),
    ("--bind @/work @/work --bind @/work/p/sub /mnt", "@/work/p"),
    ("--bind @/work @/work --ro-bind @/work/p/sub /mnt", "@/work/p"),
    ("--bind @/work @/work --dev-bind @/work/p/sub /mnt", "@/work/p"),
    ("--bind @/work @/work --bind-try @/work/p/sub /mnt", "@/work/p"),
    ("--bind @/work @/work --bind @/work/p /mnt", "@/work/p"),
    ("--bind @/work @/work --tmpfs /mnt --ro-bind @/work/link /mnt/file", "@/work/link"),
    // In whichever order, and under whichever name it is writable.
    ("--bind @/work/p/sub /mnt --bind @/work @/work", "@/work/p"),
    ("--bind @/work /media --bind @/work/p/sub /mnt", "@/work/p"),
    ("--dev-bind @/work /media --bind @/work/p/sub /mnt", "@/work/p"),
    // A link that stays inside could have been put there as well.
    ("--bind @/work @/work --bind @/work/loop/sub /mnt", "@/work/loop"),
    // Below a link that is the user's own.
    ("--bind @/alias/../work @/work --bind @/alias/../work/p/sub /mnt", "/work/p"),
    // Destinations.
    ("--bind @/work @/work --tmpfs @/work/loop/sub", "@/work/loop"),
    ("--bind @/work @/work --ro-bind /etc @/work/loop/sub", "@/work/loop"),
    ("--bind @/work @/work --mask @/work/loop/file", "@/work/loop"),
    ("--bind @/work @/work --mask @/work/p/one", "@/work/p"),
    ("--bind @/work @/work --placeholders --dir @/work/loop/new", "@/work/loop"),
    ("--bind @/work @/work --placeholders --file 9 @/work/loop/new", "@/work/loop"),
    ("--bind @/work @/work --ro-bind-data 9 @/work/loop/file", "@/work/loop"),
    ("--bind @/work @/work --chmod 0700 @/work/loop/sub", "@/work/loop"),
    // Overlay layers.
    ("--bind @/work @/work --overlay-src @/work/p/sub --overlay-src /etc --ro-overlay /mnt", "@/work/p"),
    ("--bind @/work @/work --overlay-src @/work/p/sub --tmp-overlay /mnt", "@/work/p"),
    ("--bind @/work @/work --overlay-src /etc --overlay @/work/p/up @/work/p/wd /mnt", "@/work/p"),
    ("--bind @/work @/work --overlay-src /etc --overlay @/work/loop/sub @/secret/wd /mnt", "@/work/loop"),
];

both! {
    fn bubblewrap_follows_what_an_earlier_run_has_left(who) {
        // The control: what the link leads to, and nobody has granted, is written.
        if !srt_tests::has("bwrap") {
            srt_tests::skip!("no bwrap");
        }
        let place = Place::new(who);
        let mut command = who.command("bwrap");
        command.args(place.words("--ro-bind / / --bind @/work @/work --bind @/work/p/sub @/work/p/sub"));
        command.args(["sh", "-c", "echo OWNED >$0/file"]).arg(place.path("work/p/sub"));
        run_bwrap(|| run(&mut command)).ok();
        assert_eq!(fs::read_to_string(place.path("secret/sub/file")).expect("read"), "OWNED\n");
    }

    fn no_path_of_srt_mount_leads_through_a_link_that_an_earlier_run_could_have_left(who) {
        let place = Place::new(who);
        symlink("other", place.path("alias")).expect("symlink");
        let mut got_through = vec![];
        for (mounts, link) in REFUSED {
            let ran = place.run("", mounts, "echo it ran");
            if !place.is_refused(&ran, link) {
                got_through.push((mounts, ran.out, ran.err));
            }
        }
        assert!(got_through.is_empty(), "{got_through:#?}");
        assert!(!place.path("work/inside/new").exists());
    }

    fn what_lies_below_dev_may_be_written_like_any_other_place(who) {
        // With a mask or data srt-mount mounts a tmpfs of its own, which must not be in the way.
        let scratch = who.scratch_in("/dev/shm");
        scratch.dir("work/real");
        scratch.file("work/real/file", "real");
        symlink("real", scratch.join("work/link")).expect("symlink");
        for (mounts, link) in [
            ("--bind @/work /mnt --mask /mnt/link/file", "/mnt/link"),
            ("--bind @/work /mnt --ro-bind-data 9 /mnt/link/file", "/mnt/link"),
            ("--bind @/work /mnt --overlay-src /etc --tmp-overlay /mnt/link", "/mnt/link"),
            ("--dev-bind /dev /dev --mask @/work/link/file", "@/work/link"),
            ("--tmpfs /mnt --bind @/work /mnt/w --symlink w/link /mnt/l --mask /mnt/l/file", "/mnt/w/link"),
        ] {
            let words = |text: &str| text.replace('@', scratch.text());
            let mut command = who.command("srt-ns");
            command.args(["--keep-fd", "9", "--", "srt-mount", "--ro-bind", "/", "/"]);
            command.args(words(mounts).split(' ')).args(["--", "sh", "-c", "echo it ran"]);
            let data = fs::File::open("/etc/hostname").expect("a file");
            pass_fd(&mut command, data.as_raw_fd(), 9);
            run(&mut command).code(125).one_clear_error("srt-mount").complains(&words(link));
        }
        // The control: what nobody inside can have left is followed, and masked.
        let (work, real) = (scratch.join("work"), scratch.join("work/real"));
        let script = "test ! -s /mnt/link/file && test -s /media/file && echo well";
        let mut command = who.command("srt-ns");
        command.args(["--", "srt-mount", "--ro-bind", "/", "/", "--ro-bind"]).arg(work).args(["/mnt", "--bind"]).arg(real);
        run(command.args(["/media", "--mask", "/mnt/link/file", "--", "sh", "-c", script])).ok().says("well");
    }

    fn a_writable_source_that_is_exchanged_during_the_start_is_as_writable(who) {
        let scratch = who.scratch();
        scratch.file("work/sub/real/file", "real");
        scratch.dir("work/other");
        symlink("real", scratch.join("work/sub/link")).expect("symlink");
        let (reader, mut writer) = std::io::pipe().expect("pipe");
        let mut command = who.command("srt-ns");
        command.args(["--keep-fd", "9", "--", "srt-mount", "--ro-bind", "/", "/", "--bind"]).arg(scratch.join("work/sub"));
        command.args(["/mnt", "--tmpfs", "/media", "--file", "9", "/media/data", "--mask", "/mnt/link/file", "--", "true"]);
        pass_fd(&mut command, reader.as_raw_fd(), 9);
        let started = thread::spawn(move || (run(&mut command), drop(reader)).0);
        reads(&mut writer);
        fs::rename(scratch.join("work/sub"), scratch.join("work/was")).expect("rename");
        fs::rename(scratch.join("work/other"), scratch.join("work/sub")).expect("rename");
        drop(writer);
        started.join().expect("it ran").code(125).one_clear_error("srt-mount").complains("/mnt/link");
    }

    fn a_program_in_whose_place_another_stands_by_then_does_not_run(who) {
        let scratch = who.scratch();
        copy_program(tool("srt-connect"), scratch.dir("secret").join("tool"));
        scratch.dir("work");
        symlink("../secret", scratch.join("work/d")).expect("symlink");
        // Afterwards there is no link on the way any more.
        for (exchanged, code) in [(false, 0), (true, 127)] {
            let (reader, mut writer) = std::io::pipe().expect("pipe");
            let mut command = who.command("srt-ns");
            command.args(["--keep-fd", "9", "--", "srt-mount", "--ro-bind", "/usr", "/usr", "--tmpfs", "/media", "--bind"]);
            command.arg(scratch.join(if exchanged { "work" } else { "secret" })).args(["/mnt", "--file", "9", "/media/data", "--"]);
            command.arg(scratch.join("work/d/tool")).arg("--version");
            pass_fd(&mut command, reader.as_raw_fd(), 9);
            let started = thread::spawn(move || (run(&mut command), drop(reader)).0);
            reads(&mut writer);
            if exchanged {
                fs::remove_file(scratch.join("work/d")).expect("rm");
                copy_program("/bin/echo", scratch.dir("work/d").join("tool"));
            }
            drop(writer);
            started.join().expect("it ran").code(code);
        }
    }

    fn a_relay_does_not_lead_through_a_link_in_its_sockets_place(who) {
        let place = Place::new(who);
        let _secret = Greeter::start(&place.path("secret/run/s.sock"), "secret");
        // In what may be written, or not: a socket has a name of its own.
        symlink("../secret/run/s.sock", place.path("other/s.sock")).expect("symlink");
        for socket in ["@/work/s.sock", "@/other/s.sock"] {
            place.refuses("srt-ns", &format!("--relay 8080={socket}"), "--bind @/work @/work", socket);
        }
    }

    fn a_relay_does_not_lead_through_a_link_that_an_earlier_run_could_have_left(who) {
        let place = Place::new(who);
        let _secret = Greeter::start(&place.path("secret/run/s.sock"), "secret");
        // It is srt-mount that knows what may be written.
        place.refuses("srt-mount", "--relay 8080=@/work/p/run/s.sock", "--bind @/work @/work", "@/work/p");
    }

    fn a_published_socket_is_not_made_through_a_link_that_an_earlier_run_could_have_left(who) {
        let place = Place::new(who);
        place.refuses("srt-mount", "--publish @/work/p/dev.sock=8000", "--bind @/work @/work", "@/work/p");
        assert!(!place.path("secret/dev.sock").exists());
        // Nor over one: a dead socket alone is replaced.
        place.refuses("srt-ns", "--publish @/work/s.sock=8000", "--bind @/work @/work", "@/work/s.sock");
    }

    fn links_that_nobody_inside_could_have_left_are_followed(who) {
        let place = Place::new(who);
        for (link, to) in [("alias", "other"), ("home/.config", "dotfiles/config"), ("home/.local", "../elsewhere")] {
            place.scratch.dir("home/dotfiles/config/app");
            place.scratch.dir("elsewhere/state");
            symlink(to, place.path(link)).expect("symlink");
        }
        place.scratch.file("home/dotfiles/config/app/settings", "mine");
        let works = [
            // What systems have: /bin → usr/bin, /var/run → /run.
            ("--bind @/work @/work --ro-bind /bin /mnt", "test -x /mnt/sh"),
            ("--bind @/work @/work --ro-bind /var/run /mnt", "test -d /mnt"),
            ("--bind @/work @/work --ro-bind /bin/sh @/work/inside/file", "test -x @/work/inside/file"),
            // A dotfile manager's, as source and as destination, and out of the tree.
            ("--bind @/home/.config/app @/home/.config/app", "test -w @/home/.config/app/settings"),
            ("--bind @/work @/work --bind @/home/.config/app @/home/.config/app", "test -w @/home/dotfiles/config/app/settings"),
            ("--bind @/home/.local/state @/home/.local/state", "touch @/elsewhere/state/new"),
            ("--bind @/work @/work --mask @/home/.config/app", "test -z \"$(ls @/home/.config/app)\""),
            // The writable directory itself by another name.
            ("--bind @/alias/../work @/work", "touch @/work/new"),
            ("--bind @/alias /mnt", "touch /mnt/new"),
            ("--overlay-src @/home/.config/app --tmp-overlay /mnt", "touch /mnt/settings"),
            // A link in what may be written that no option goes through.
            ("--bind @/work @/work", "test -L @/work/p"),
            ("--bind @/work @/work --bind @/secret/sub @/work/inside/sub", "touch @/work/inside/sub/new"),
        ];
        for (mounts, script) in works {
            let ran = place.run("", mounts, &format!("{} && echo well", script.replace('@', place.scratch.text())));
            assert_eq!((ran.code, ran.out.trim(), ran.err.as_str()), (Some(0), "well", ""), "{mounts}: {ran:#?}");
        }
    }

    fn a_relay_and_a_published_socket_follow_links_that_nobody_inside_could_have_left(who) {
        let place = Place::new(who);
        place.scratch.dir("run");
        symlink("../run", place.path("other/run")).expect("symlink");
        let _host = Greeter::start(&place.path("run/s.sock"), "from the host");
        let script = "exec 3<>/dev/tcp/127.0.0.1/8080; cat <&3";
        let script = format!("bash -c '{script}'");
        place.run("--relay 8080=@/other/run/s.sock", "--bind @/work @/work", &script).ok().says("from the host");
        let script = format!("test -S {}/run/dev.sock && echo there", place.scratch.text());
        place.run("--publish @/other/run/dev.sock=8000", "--bind @/work @/work", &script).ok().says("there");
        assert!(!place.path("run/dev.sock").exists());
    }
}
