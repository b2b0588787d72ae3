//! The table.

use crate::case::{Case, Difference, Given, Program, case};
use srt_tests::Who;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// What differs wherever it can be seen.
pub const EVERYWHERE: &[Difference] = &[
    Difference {
        fact: "mount *: propagation",
        bwrap: "master",
        srt: "",
        why: "bubblewrap's mounts go on receiving what is mounted on the host later; srt-mount's do not",
        who: None,
    },
    Difference {
        fact: "mount *: type",
        bwrap: "-",
        srt: "proc",
        why: "uid 0 may write much of /proc without any capability: all in it that is no process's is \
             read-only",
        who: Some(Who::Root),
    },
    Difference {
        fact: "mount */key*s: type",
        bwrap: "-",
        srt: "tmpfs",
        why: "/proc/keys and /proc/key-users show the caller's keys",
        who: None,
    },
    Difference {
        fact: "mount */sys/kernel/debug/*: flags",
        bwrap: "*",
        srt: "*nosuid,*",
        why: "bubblewrap passes over mounts in a directory that its user may not enter; to srt-mount they are \
             mounts like others",
        who: Some(Who::User),
    },
    Difference {
        fact: "*pts: owner",
        bwrap: "1000:1000",
        srt: "65534:65534",
        why: "the kernel gives the directory to uid 0 of the user namespace; bubblewrap makes a second \
             one to be that",
        who: Some(Who::User),
    },
    Difference {
        fact: "*pts: may write",
        bwrap: "yes",
        srt: "EACCES",
        why: "as above; nothing can be made there in either",
        who: Some(Who::User),
    },
    Difference {
        fact: "mount *mq*: flags",
        bwrap: "relatime,rw",
        srt: "nodev,noexec,nosuid,relatime,rw",
        why: "nosuid everywhere",
        who: None,
    },
    Difference {
        fact: "*mq*: mount flags",
        bwrap: "",
        srt: "nosuid,nodev,noexec",
        why: "as above",
        who: None,
    },
    Difference {
        fact: "*dev/*: mount flags",
        bwrap: "nosuid",
        srt: "ro,nosuid",
        why: "a device works on a read-only mount; its node on the host is not the command's to change",
        who: None,
    },
    Difference {
        fact: "mount *dev/*: flags",
        bwrap: "nosuid,relatime,rw",
        srt: "nosuid,relatime,ro",
        why: "as above",
        who: None,
    },
];

/// Why nothing goes onto a link.
const LINK: &str = "whoever could write there before chose where the link leads (CVE-2026-87766)";
/// Why --chdir differs.
const PWD: &str = "bubblewrap sets PWD to the word as it was given; srt-mount to where it is";
/// Why mount points are not made on the host.
const STAYS: &str = "what bubblewrap makes for it on the host stays there";

/// Every list of mounts.
pub fn all() -> Vec<Case> {
    [
        roots(),
        binds(),
        made(),
        destinations(),
        sources(),
        devices(),
        protection(),
        overlays(),
        runtimes(),
        refused(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is at `/`.
fn roots() -> Vec<Case> {
    vec![
        case("nothing at all", ""),
        case("everything read-only", "--ro-bind / /").program(Program::Host).act("create", "$S/new"),
        case("everything writable", "--bind / /")
            .program(Program::Host)
            .look("/dev/null")
            .act("create", "$S/new"),
        case("everything with devices", "--dev-bind / /")
            .program(Program::Host)
            .look("/dev/null")
            .look("/dev/pts"),
        case("the host's root at another place", "--ro-bind / /host")
            .look("/host/usr")
            .look("/host/etc/passwd"),
        case("a tmpfs at / first", "--tmpfs / --dir /a --ro-bind $S/dir /b").setup(|w| w.files(&["dir/f"])),
        case("a small private tmpfs at / first", "--perms 0700 --size 1048576 --tmpfs / --dir /a"),
        case("a tmpfs at / last hides what came before", "--dir /a --tmpfs / --dir /b"),
        case("a directory of the host as the root", "--bind $S/root /")
            .setup(|w| {
                w.files(&["root/etc/passwd", "root/bin/sh"]);
                w.show_tree("root/tree");
            })
            .program(Program::At("/tree"))
            .act("create", "/new"),
        case(
            "a read-only directory of the host as the root, complete",
            "--ro-bind $S/root / --proc /proc --dev /dev --tmpfs /tmp",
        )
        .setup(|w| {
            w.files(&["root/etc/passwd"]);
            ["root/proc", "root/dev", "root/tmp"].iter().for_each(|name| w.dir(name));
            w.show_tree("root/tree");
        })
        .program(Program::At("/tree"))
        .act("create", "/new")
        .act("create", "/tmp/new"),
        case("a root that becomes read-only in the end", "--dir /a --tmpfs /tmp --remount-ro /")
            .program(Program::First)
            .act("create", "/new")
            .act("create", "/tmp/new"),
        case("the root twice", "--ro-bind $S/one / --ro-bind $S/two /")
            .setup(|w| {
                w.files(&["one/1", "two/2"]);
                w.show_tree("two/tree");
            })
            .program(Program::At("/tree")),
        case("a directory made at /", "--dir / --dir /a"),
    ]
}

/// --bind and its relatives, over and under each other.
fn binds() -> Vec<Case> {
    let nest = |w: &crate::case::World| w.files(&["d/f", "d/in/f", "d/in/ner/f", "d/in/ner/most/f"]);
    vec![
        case("a directory", "--bind $S/d /d").setup(|w| w.files(&["d/f", "d/e/g"])).act("overwrite", "/d/f"),
        case("a read-only directory", "--ro-bind $S/d /d")
            .setup(|w| w.files(&["d/f", "d/e/g"]))
            .act("overwrite", "/d/f")
            .act("create", "/d/e/new")
            .act("unlink", "/d/f"),
        case("a file", "--bind $S/f /f").setup(|w| w.file("f")).act("overwrite", "/f"),
        case("a read-only file", "--ro-bind $S/f /f")
            .setup(|w| w.file("f"))
            .act("overwrite", "/f")
            .act("unlink", "/f"),
        case("an executable, a setuid bit, odd modes", "--ro-bind $S/d /d").setup(|w| {
            w.files(&["d/x", "d/s", "d/g", "d/n"]);
            [("x", 0o755), ("s", 0o4755), ("g", 0o2711), ("n", 0)]
                .iter()
                .for_each(|(name, mode)| w.mode(&format!("d/{name}"), *mode));
            w.mode("d", 0o1777);
        }),
        case("a socket and a fifo", "--bind $S/s /run/s --ro-bind $S/s /run/ro --bind $S/p /p")
            .setup(|w| {
                w.socket("s");
                w.run("mkfifo p");
            })
            .parents(&["/run"]),
        case("read-only below writable", "--bind $S/d /d --ro-bind $S/d/in /d/in")
            .setup(nest)
            .act("overwrite", "/d/f")
            .act("overwrite", "/d/in/f"),
        case("writable below read-only", "--ro-bind $S/d /d --bind $S/d/in /d/in")
            .setup(nest)
            .act("overwrite", "/d/f")
            .act("overwrite", "/d/in/f"),
        case(
            "four levels, by turns writable and read-only",
            "--bind $S/d /d --ro-bind $S/d/in /d/in --bind $S/d/in/ner /d/in/ner --ro-bind \
             $S/d/in/ner/most /d/in/ner/most",
        )
        .setup(nest)
        .act("overwrite", "/d/in/ner/f")
        .act("overwrite", "/d/in/ner/most/f"),
        case("the same directory twice, read-only last", "--bind $S/d /d --ro-bind $S/d /d").setup(nest),
        case("the same directory twice, writable last", "--ro-bind $S/d /d --bind $S/d /d").setup(nest),
        case(
            "the outer directory comes after the inner one and hides it",
            "--bind $S/d/in /d/in --ro-bind $S/d /d",
        )
        .setup(nest),
        case("a parent bound below its own child", "--bind $S/d /d --ro-bind $S /d/in").setup(nest),
        case(
            "one source at many places",
            "--bind $S/d /a --ro-bind $S/d /b --dev-bind $S/d /c --bind $S/d/f /f",
        )
        .setup(nest),
        case("a file over a file, twice", "--bind $S/d /d --ro-bind $S/one /d/f --ro-bind $S/two /d/f")
            .setup(|w| {
                w.files(&["d/f", "one", "two"]);
            }),
        case(
            "a tmpfs hides a directory, and one below comes back",
            "--bind $S /w --tmpfs /w/d --bind $S/d/in /w/d/in",
        )
        .setup(nest),
        case(
            "the source lies where something is mounted already",
            "--tmpfs $S --bind $S/d $S/d --ro-bind $S/d/in /in",
        )
        .setup(nest),
        case(
            "sources that are not there are passed over by -try",
            "--bind-try $S/no /no --ro-bind-try $S/no /ro --dev-bind-try $S/no /deep/er/no \
             --ro-bind-try $S/d /d --dev-bind-try $S/d/f /f --bind-try $S/d/in /in",
        )
        .setup(nest),
        case("three hundred binds", "")
            .words((0..300).flat_map(|n| ["--ro-bind".to_owned(), "$S/d/f".to_owned(), format!("/many/{n}")]))
            .setup(nest)
            .parents(&["/many"]),
        case("writes end up on the host", "--bind $S/d /d --ro-bind $S/d/in /d/in --ro-bind /dev/null /d/f")
            .setup(nest)
            .act("create", "/d/new")
            .act("mkdir", "/d/dir")
            .act("overwrite", "/d/f"),
    ]
}

/// What is made in the new tree.
fn made() -> Vec<Case> {
    vec![
        case("a directory is made with its parents", "--dir /a/b/c --dir /a/b/d --dir /a"),
        case(
            "a private directory is made with private parents",
            "--perms 0700 --dir /a/b/c --perms 0750 --dir /d/e --perms 0 --dir /z/z",
        ),
        case(
            "a directory that is there keeps its mode",
            "--perms 0700 --dir /a --dir /a --perms 0711 --dir /a",
        ),
        case(
            "modes of what is made",
            "--perms 1777 --tmpfs /t --perms 0500 --dir /d --perms 0600 --file 11 /f --file 12 /g \
             --perms 0640 --ro-bind-data 13 /h --ro-bind-data 14 /i --perms 0604 --bind-data 15 /j \
             --bind-data 16 /k",
        )
        .fd(11, Given::Text("eleven"))
        .fd(12, Given::Text("twelve"))
        .fd(13, Given::Text("thirteen"))
        .fd(14, Given::Text("fourteen"))
        .fd(15, Given::Text("fifteen"))
        .fd(16, Given::Text("sixteen"))
        .act("overwrite", "/g")
        .act("overwrite", "/i")
        .act("overwrite", "/k"),
        case(
            "data from pipes, and none at all",
            "--file 11 /a/b/pipe --ro-bind-data 12 /c/d/pipe --file 13 /empty",
        )
        .fd(11, Given::Pipe("through a pipe"))
        .fd(12, Given::Pipe("read-only through a pipe"))
        .fd(13, Given::Text("")),
        case(
            "data over a file of a read-only bind",
            "--ro-bind $S/d /d --ro-bind-data 11 /d/f --bind-data 12 /d/g",
        )
        .setup(|w| w.files(&["d/f", "d/g"]))
        .fd(11, Given::Text("new f"))
        .fd(12, Given::Text("new g")),
        case(
            "a tmpfs of a given size, and one without",
            "--size 65536 --tmpfs /small --tmpfs /large --size 4096 --perms 0711 --tmpfs /a/b",
        ),
        case("a tmpfs over a directory with things in it", "--ro-bind $S/d /d --tmpfs /d/e")
            .setup(|w| w.files(&["d/e/f", "d/g"]))
            .act("create", "/d/e/new"),
        case(
            "symlinks of every kind",
            "--symlink usr/bin /bin --symlink /etc/x /abs --symlink nowhere /dangling --symlink ../up \
             /a/b/link --symlink . /dot",
        )
        .parents(&["/a", "/a/b"]),
        case(
            "a symlink that is there already with the same target",
            "--symlink usr/lib /lib --symlink usr/lib /lib",
        )
        .bwrap_refuses("0.8 does; since 0.9 it takes what is there if it is the same"),
        case(
            "chmod of what was made",
            "--dir /d --file 11 /f --tmpfs /t --chmod 0700 /d --chmod 0444 /f --chmod 1777 /t",
        )
        .fd(11, Given::Text("f")),
        case(
            "one file system is made read-only, those below stay",
            "--tmpfs /t --dir /t/d --tmpfs /t/u --remount-ro /t",
        )
        .act("create", "/t/new")
        .act("create", "/t/u/new"),
        case("a bind is made read-only afterwards", "--bind $S/d /d --remount-ro /d")
            .setup(|w| w.files(&["d/f"]))
            .act("overwrite", "/d/f"),
        case(
            "what is made read-only twice stays so",
            "--ro-bind $S/d /d --remount-ro /d --dev-bind $S/d /e --remount-ro /e",
        )
        .setup(|w| w.files(&["d/f"])),
        case("options from a descriptor", "--dir /first --args 11 --dir /last")
            .fd(11, Given::Text("--bind\0$S/d\0/d\0--symlink\0with space\0/link\0--tmpfs\0/t\0"))
            .setup(|w| w.files(&["d/f"])),
        case(
            "options from two descriptors, one of them empty, one without the last NUL",
            "--args 11 --args 12",
        )
        .fd(11, Given::Text(""))
        .fd(12, Given::Pipe("--dir\0/a\0--dir\0/b")),
        case("a mode from one place and its option from another", "--perms 0700 --args 11")
            .fd(11, Given::Text("--dir\0/a\0")),
        case("a message queue file system", "--mqueue /mq"),
        case(
            "mount points at the end of missing parents",
            "--tmpfs /a/b/t --proc /c/d/proc --ro-bind $S/d /e/f/d --ro-bind $S/d/f /g/h/f --mqueue \
             /i/j/mq --dev /k/l/dev",
        )
        .setup(|w| w.files(&["d/f"]))
        .parents(&["/c", "/c/d", "/e", "/e/f", "/g", "/g/h", "/i", "/i/j", "/k", "/k/l"]),
    ]
}

/// How destinations are written and where they lead.
fn destinations() -> Vec<Case> {
    let d = |w: &crate::case::World| w.files(&["d/f", "e/g"]);
    vec![
        case(
            "relative destinations count from the new root",
            "--bind $S/d d --tmpfs t/u --dir x/y --symlink z l --proc proc --ro-bind $S/d/f f",
        )
        .setup(d)
        .cwd("$S"),
        case(
            "slashes and dots",
            "--bind $S/d //d/ --dir /a/./b/ --tmpfs /t// --ro-bind $S/e/ /x/../y --dir /p/q/../r",
        )
        .setup(d)
        .parents(&["/x"]),
        case(
            "paths back to what is made on the way",
            "--tmpfs /a/../a/b --ro-bind $S/d /c/d/../../c/d/e --dir /x/../x",
        )
        .setup(d)
        .parents(&["/c", "/c/d"]),
        case("more dots than there are directories", "--dir /../../a --tmpfs /../t --bind $S/d /../../d")
            .setup(d)
            .differs(
                "*: type",
                "-",
                "*",
                "bubblewrap leaves the new root by such a path and makes them outside",
            )
            .differs("/..: names", "*", "*", "as above"),
        case("names with odd bytes", "")
            .words(["--bind", "$S/d", "/a b"])
            .words(["--dir", "/tab\tand\nline"])
            .words([
                "--tmpfs",
                "/back\\slash",
                "--dir",
                "/colon:comma,",
                "--symlink",
                "a b",
                "/li nk",
                "--ro-bind",
                "$S/sp ace/x",
                "/sp ace/x",
            ])
            .words([OsString::from("--dir"), OsString::from_vec(b"/not \xff utf-8".to_vec())])
            .setup(|w| w.files(&["d/f", "sp ace/x"]))
            .parents(&["/sp ace"]),
        case(
            "a symlink in the middle of a destination",
            "--ro-bind $S/w /w --ro-bind $S/d /w/link/in --tmpfs /w/link/sub",
        )
        .setup(|w| {
            w.files(&["d/f", "w/real/in/x", "w/real/sub/y"]);
            w.link("real", "w/link");
        }),
        case("a symlink that the command may replace", "--bind $S/w /w --ro-bind $S/d /w/link/in")
            .setup(|w| {
                w.files(&["d/f", "w/real/in/x"]);
                w.link("real", "w/link");
            })
            .srt_refuses("the symbolic link /w/link, which", "an earlier run may have put the link there"),
        case(
            "a symlink of one's own in the middle of a destination",
            "--dir /usr/lib --symlink usr/lib /lib --ro-bind $S/d /lib/d --dir /lib/made --symlink x \
             /lib/link",
        )
        .setup(d),
        case(
            "a symlink upwards in the middle of a destination",
            "--dir /a/b --dir /c --symlink ../../c /a/b/up --ro-bind $S/d /a/b/up/d",
        )
        .setup(d),
        case(
            "an absolute symlink in the middle of a destination",
            "--dir /usr/lib --symlink /usr/lib /lib --ro-bind $S/d /lib/d",
        )
        .setup(d)
        .bwrap_refuses(
            "it follows the link in a root that is not the new one yet; srt-mount resolves it where \
             the command will",
        ),
        case(
            "a symlink that climbs out of the new root",
            "--dir /a --symlink ../../../../../../c /a/out --dir /c --ro-bind $S/d /a/out/d",
        )
        .setup(d)
        .bwrap_refuses(
            "the link leads it out of the new root; srt-mount's root is the new one (RESOLVE_IN_ROOT)",
        ),
        case("a symlink to a directory as the destination", "--bind $S/w /w --ro-bind $S/d /w/link")
            .setup(|w| {
                w.files(&["d/f", "w/real/x"]);
                w.link("real", "w/link");
            })
            .srt_refuses("symbolic link", LINK),
        case("a symlink to a file as the destination", "--bind $S/w /w --ro-bind $S/d/f /w/link")
            .setup(|w| {
                w.files(&["d/f", "w/real"]);
                w.link("real", "w/link");
            })
            .srt_refuses("symbolic link", LINK),
        case("a dangling symlink as the destination", "--bind $S/w /w --ro-bind $S/d/f /w/link")
            .setup(|w| {
                w.files(&["d/f", "w/x"]);
                w.link("made-by-the-link", "w/link");
            })
            .srt_refuses("symbolic link", "bubblewrap makes, on the host, the file that the link names"),
        case("a tmpfs on a symlink", "--dir /real --symlink real /link --tmpfs /link")
            .srt_refuses("symbolic link", LINK),
        case("a directory made where a symlink is", "--dir /real --symlink real /link --dir /link")
            .srt_refuses("symbolic link", LINK),
        case("the working directory that is there is kept", "--bind $S/d $S/d")
            .setup(d)
            .cwd("$S/d")
            .parents(&["$S", "/tmp"]),
        case("a working directory that is not there becomes $HOME", "--bind $S/d /d --bind $S/e $S/e")
            .setup(d)
            .cwd("$S/d")
            .home("$S/e")
            .parents(&["$S", "/tmp"]),
        case("neither the working directory nor $HOME is there", "--bind $S/d /d").setup(d).cwd("$S/d"),
        case("--chdir", "--bind $S/d /d --chdir /d").setup(d),
        case("--chdir through a symlink", "--bind $S/d /d --symlink d /l --chdir /l").setup(d).differs(
            "working directory: PWD",
            "/l",
            "/d",
            PWD,
        ),
        case("a relative --chdir", "--bind $S/d /d --chdir d").setup(d).cwd("$S").differs(
            "working directory: PWD",
            "d",
            "/d",
            PWD,
        ),
        case("a working directory above a mount that hides it", "--bind $S $S --tmpfs $S/d")
            .setup(d)
            .cwd("$S/d")
            .parents(&["/tmp"]),
        case("a link is bound where it lies", "--ro-bind / / --bind $S/link $S/link")
            .setup(|w| {
                w.files(&["real/f"]);
                w.link("real", "link");
            })
            .program(Program::Host)
            .srt_refuses("symbolic link", "bubblewrap binds what the link names over what the link names")
            .parents(&["/tmp"]),
        case("a way through links on both sides", "--ro-bind / / --bind $S/link/in $S/link/in")
            .setup(|w| {
                w.files(&["real/in/f"]);
                w.link("real", "link");
            })
            .program(Program::Host)
            .act("create", "$S/real/in/new"),
        case("chmod through a symlink", "--dir /d --symlink d /l --chmod 0700 /l")
            .srt_refuses("symbolic link", LINK),
    ]
}

/// How sources are written and what they are.
fn sources() -> Vec<Case> {
    vec![
        case("a symlink as the source", "--ro-bind $S/link /d --ro-bind $S/flink /f").setup(|w| {
            w.files(&["d/f"]);
            w.link("d", "link");
            w.link("d/f", "flink");
        }),
        case("dots and slashes in the source", "--ro-bind $S/d/../d/./ /d --bind $S//d//f /f")
            .setup(|w| w.files(&["d/f"])),
        case("a relative source", "--ro-bind d /d --bind ./d/f /f --ro-bind .. /up")
            .setup(|w| w.files(&["d/f", "x/d/f"]))
            .cwd("$S/x"),
        case("a source with mounts in it", "--bind $S/d /d --ro-bind $S/d /ro --dev-bind $S/d /dev-bound")
            .setup(|w| {
                w.files(&["d/f", "d/m/hidden", "d/m2/hidden"]);
                w.run("mount -t tmpfs -o mode=755 one d/m");
                w.run("mount -t tmpfs -o mode=711,noexec,noatime two d/m2");
                w.run("mkdir d/m/deep");
                w.run("mount -t tmpfs -o mode=700,ro three d/m/deep");
            })
            .act("create", "/ro/m/new"),
        case("a source that is a read-only mount", "--bind $S/d /d --dev-bind $S/d /e").setup(|w| {
            w.dir("d");
            w.run("mount -t tmpfs -o ro,nosuid,nodev,noexec tmpfs d");
        }),
        case("a file with a file mounted on it", "--bind $S/f /f --bind $S/d /d").setup(|w| {
            w.files(&["f", "g", "d/f"]);
            w.run("mount --bind g f");
            w.run("mount --bind g d/f");
        }),
        case("the host's /proc and /sys", "--ro-bind /proc /proc --bind /sys /sys")
            .look("/proc/version")
            .look("/sys/kernel"),
        case("a descriptor", "--bind-fd 11 /d --ro-bind-fd 12 /ro --bind-fd 13 /f --ro-bind-fd 14 /rf")
            .setup(|w| w.files(&["d/f", "e/g"]))
            .fd(11, Given::Path("$S/d"))
            .fd(12, Given::Directory("$S/e"))
            .fd(13, Given::Path("$S/d/f"))
            .fd(14, Given::Path("$S/e/g")),
        case("a descriptor of a directory with mounts in it", "--ro-bind-fd 11 /d")
            .setup(|w| {
                w.files(&["d/f", "d/m/hidden"]);
                w.run("mount -t tmpfs -o mode=755 one d/m");
            })
            .fd(11, Given::Path("$S/d")),
        case("a network namespace's file", "--bind $S/netns /netns --ro-bind $S/netns /ro-netns").setup(
            |w| {
                w.file("netns");
                w.run("mount --bind /proc/self/ns/net netns");
            },
        ),
        case("a source that only root can enter", "--ro-bind $S/d /d").setup(|w| {
            w.files(&["d/f"]);
            w.roots("d");
            w.mode("d", 0o700);
        }),
        case("a directory with three hundred files", "--ro-bind $S/d /d").setup(|w| {
            (0..300).for_each(|n| w.file(&format!("d/{n}")));
        }),
    ]
}

/// --dev, --proc and what is mounted on them.
fn devices() -> Vec<Case> {
    vec![
        case("--dev", "--dev /dev"),
        case("--dev over the host's", "--ro-bind / / --dev /dev")
            .program(Program::Host)
            .look("/dev/null")
            .look("/dev/shm")
            .look("/dev/pts/ptmx"),
        case("--proc", "--proc /proc")
            .look("/proc/sys/kernel/hostname")
            .look("/proc/version")
            .differs(
                "/proc/sys/kernel/hostname: may write",
                "yes",
                "EROFS",
                "the kernel lets uid 0 write it without any capability",
            )
            .for_whom(Who::Root)
            .differs(
                "/proc/sys/kernel/hostname: mount flags",
                "nosuid,nodev,noexec",
                "ro,nosuid,nodev,noexec",
                "as above",
            )
            .for_whom(Who::Root)
            .differs(
                "/proc/version: mount flags",
                "nosuid,nodev,noexec",
                "ro,nosuid,nodev,noexec",
                "the kernel lets uid 0 change its mode, which is the same in every procfs, without any capability",
            )
            .for_whom(Who::Root),
        case("--proc twice, and at another place", "--proc /proc --proc /proc --proc /p"),
        case(
            "what people add to --dev",
            "--dev /dev --tmpfs /dev/shm --dev-bind /dev/full /dev/extra --ro-bind $S/f /dev/file \
             --symlink null /dev/nothing --mqueue /dev/mqueue --dev-bind-try /dev/no-such-device \
             /dev/no",
        )
        .setup(|w| w.file("f")),
        case("the host's /dev as it is", "--dev-bind /dev /dev").look("/dev/null").look("/dev/shm"),
        case(
            "devices bound without devices",
            "--bind /dev/null /null --dev-bind /dev/null /opens --ro-bind /dev/zero /zero --dev-bind \
             /dev/zero /z",
        ),
        case("--dev that becomes read-only", "--dev /dev --remount-ro /dev")
            .act("create", "/dev/new")
            .act("create", "/dev/shm/new"),
        case("--dev and --proc within a bind", "--bind $S/root /r --proc /r/proc --dev /r/dev").setup(|w| {
            w.dir("root/proc");
            w.dir("root/dev");
        }),
        case(
            "masks on a new /proc",
            "--proc /proc --ro-bind /dev/null /proc/kallsyms --tmpfs /proc/tty --ro-bind $S/d \
             /proc/fs",
        )
        .setup(|w| w.files(&["d/f"]))
        .look("/proc/kallsyms")
        .look("/proc/tty")
        .look("/proc/fs/f"),
        case("the host's shared memory in --dev", "--dev /dev --dev-bind /dev/shm /dev/shm").look("/dev/shm"),
    ]
}

/// What keeps the command away from things; --mask and its like.
fn protection() -> Vec<Case> {
    let project = |w: &crate::case::World| {
        w.files(&[
            "p/src/main.rs",
            "p/.git/config",
            "p/.git/hooks/pre-commit",
            "p/.env",
            "p/sub/.env",
            "p/secrets/key",
            "home/.ssh/id",
        ]);
    };
    vec![
        case("a masked directory", "--bind $S/p /p --mask /p/secrets")
            .bwrap("--bind $S/p /p --perms 555 --tmpfs /p/secrets --remount-ro /p/secrets")
            .setup(project)
            .act("create", "/p/secrets/new")
            .differs(
                "/p/secrets: mount flags",
                "ro,nosuid,nodev",
                "ro,nosuid,nodev,noexec",
                "nothing there is to be run",
            )
            .differs(
                "mount /p/secrets: flags",
                "nodev,nosuid,relatime,ro",
                "nodev,noexec,nosuid,relatime,ro",
                "as above",
            ),
        case("a masked file", "--bind $S/p /p --mask /p/.env")
            .bwrap("--bind $S/p /p --perms 444 --ro-bind-data 11 /p/.env")
            .fd(11, Given::Text(""))
            .setup(project)
            .act("overwrite", "/p/.env")
            .differs(
                "/p/.env: mount flags",
                "ro,nosuid,nodev",
                "ro,nosuid,nodev,noexec",
                "nothing there is to be run",
            )
            .differs(
                "mount /p/.env: flags",
                "nodev,nosuid,relatime,ro",
                "nodev,noexec,nosuid,relatime,ro",
                "as above",
            ),
        case(
            "/dev/null over a secret",
            "--bind $S/p /p --ro-bind /dev/null /p/.env --ro-bind /dev/null /p/sub/.env",
        )
        .setup(project)
        .act("overwrite", "/p/.env")
        .act("unlink", "/p/.env")
        .act("create", "/p/sub/new"),
        case(
            "a tmpfs without any permission over a directory of secrets",
            "--ro-bind $S /w --perms 000 --tmpfs /w/p/secrets --remount-ro /w/p/secrets",
        )
        .setup(project),
        case(
            "data without any permission over a secret",
            "--ro-bind $S /w --perms 000 --ro-bind-data 11 /w/p/.env",
        )
        .fd(11, Given::Text(""))
        .setup(project),
        case(
            "the protected name itself cannot be moved",
            "--bind $S/p /p --ro-bind $S/p/.git/hooks /p/.git/hooks --ro-bind $S/p/.git/config \
             /p/.git/config",
        )
        .setup(project)
        .act("rename", "/p/.git/hooks")
        .act("unlink", "/p/.git/config")
        .act("overwrite", "/p/.git/hooks/pre-commit"),
        case(
            "a directory above a protected one cannot be moved",
            "--bind $S/p /p --ro-bind $S/p/.git/hooks /p/.git/hooks",
        )
        .setup(project)
        .act("rename", "/p/.git")
        .act("rename", "/p/src")
        .differs(
            "/p/.git: rename",
            "done",
            "EBUSY",
            "bubblewrap protects the inode, srt-mount the path: the directories between are pinned",
        ),
        case(
            "the command's own list of writable and denied paths",
            "--ro-bind / / --bind $S/p $S/p --ro-bind $S/p/.git/hooks $S/p/.git/hooks --ro-bind \
             $S/p/.git/config $S/p/.git/config --tmpfs $S/home/.ssh --ro-bind /dev/null $S/p/.env \
             --dev /dev --proc /proc --chdir $S/p",
        )
        .setup(project)
        .program(Program::Host)
        .act("create", "$S/p/src/new")
        .act("create", "$S/home/new")
        .act("overwrite", "$S/p/.env"),
    ]
}

/// The root that bubblewrap would make, with a place for the overlay; then, after the overlay, the program.
macro_rules! by_hand {
    ($overlay:literal) => {
        concat!(
            "mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs \"$N\"; mkdir \"$N/o\"\n",
            "mount -t tmpfs -o mode=755 tmpfs \"$S/t\"; mkdir \"$S/t/u\" \"$S/t/w\"\n",
            $overlay,
            "\numask 333; : >\"$N/.show-tree\"; mount --bind \"$T\" \"$N/.show-tree\"\n",
            "mount -o remount,bind,ro,nosuid,nodev \"$N/.show-tree\"; umask 22; cd /; exec chroot \
             \"$N\" /.show-tree \"$@\"",
        )
    };
}

/// Overlays. bubblewrap has them since 0.11: for an older one a script builds the tree by hand.
fn overlays() -> Vec<Case> {
    let layers = |w: &crate::case::World| {
        w.files(&["low/a", "low/b", "low/d/x", "high/b", "high/d/y", "up/c", "inside/f"]);
        ["work", "N", "t"].iter().for_each(|name| w.dir(name));
    };
    // Paths in which every character that the kernel's option string could trip over occurs.
    let odd = |w: &crate::case::World| {
        w.files(&["a:b,c\\d/low:1/a", "a:b,c\\d/low:1/b", "a:b,c\\d/low,2/b", "a:b,c\\d/up\\3/c"]);
        ["a:b,c\\d/w ork:", "N", "t", "plain"].iter().for_each(|name| w.dir(name));
    };
    let change = |case: Case| {
        case.act("overwrite", "/o/a").act("create", "/o/new").act("unlink", "/o/b").act("mkdir", "/o/dir")
    };
    vec![
        change(case("an overlay that throws writes away", "--overlay-src $S/low --tmp-overlay /o"))
            .setup(layers)
            .reference(by_hand!(
                "mount -t overlay -o \
             nosuid,nodev,userxattr,lowerdir=$S/low,upperdir=$S/t/u,workdir=$S/t/w overlay $N/o"
            )),
        change(case(
            "an overlay of two layers, the last one on top",
            "--overlay-src $S/low --overlay-src $S/high --tmp-overlay /o",
        ))
        .setup(layers)
        .reference(by_hand!(
            "mount -t overlay -o \
             nosuid,nodev,userxattr,lowerdir=$S/high:$S/low,upperdir=$S/t/u,workdir=$S/t/w overlay \
             $N/o"
        )),
        change(case("a read-only overlay", "--overlay-src $S/low --overlay-src $S/high --ro-overlay /o"))
            .setup(layers)
            .reference(by_hand!(
                "mount -t overlay -o ro,nosuid,nodev,userxattr,lowerdir=$S/high:$S/low overlay $N/o"
            )),
        change(case(
            "an overlay that keeps writes on the host",
            "--overlay-src $S/low --overlay $S/up $S/work /o",
        ))
        .setup(layers)
        .reference(by_hand!(
            "mount -t overlay -o \
             nosuid,nodev,userxattr,lowerdir=$S/low,upperdir=$S/up,workdir=$S/work overlay $N/o"
        )),
        change(case("an overlay of layers with : , and \\ in their paths", ""))
            .words([
                "--overlay-src",
                "$S/a:b,c\\d/low:1",
                "--overlay-src",
                "$S/a:b,c\\d/low,2",
                "--tmp-overlay",
                "/o",
            ])
            .setup(odd)
            .reference(by_hand!(
                "mount --bind \"$S/a:b,c\\\\d\" $S/plain; cd $S/plain; mkdir $S/t/1 $S/t/2; mount --bind \
             low:1 $S/t/1; mount --bind low,2 $S/t/2\nmount -t overlay -o \
             nosuid,nodev,userxattr,lowerdir=$S/t/2:$S/t/1,upperdir=$S/t/u,workdir=$S/t/w overlay \
             $N/o"
            )),
        change(case("an overlay that keeps writes, with : , and \\ in its paths", ""))
            .words([
                "--overlay-src",
                "$S/a:b,c\\d/low:1",
                "--overlay",
                "$S/a:b,c\\d/up\\3",
                "$S/a:b,c\\d/w ork:",
                "/o",
            ])
            .setup(odd)
            .reference(by_hand!(
                "mount --bind \"$S/a:b,c\\\\d\" $S/plain; cd $S/plain; mkdir $S/t/1; mount --bind low:1 \
             $S/t/1; ln -s $S/plain/up?3 $S/t/3; ln -s \"$S/plain/w ork:\" $S/t/4\nmount -t overlay \
             -o nosuid,nodev,userxattr,lowerdir=$S/t/1,upperdir=$S/t/3,workdir=$S/t/4 overlay $N/o"
            )),
        case("a layer that is not there", "--overlay-src $S/no --tmp-overlay /o")
            .setup(layers)
            .both_refuse("$S/no"),
        case("a layer that is a file", "--overlay-src $S/low/a --tmp-overlay /o")
            .setup(layers)
            .both_refuse("/o"),
        case("a read-only overlay of one layer", "--overlay-src $S/low --ro-overlay /o")
            .setup(layers)
            .both_refuse("--ro-overlay"),
        case(
            "an overlay whose work directory is on another file system",
            "--overlay-src $S/low --overlay $S/up /dev/shm /o",
        )
        .setup(layers)
        .both_refuse("/o"),
    ]
}

/// Whole argument lists of programs that drive bubblewrap.
fn runtimes() -> Vec<Case> {
    vec![
        case(
            "an agent's sandbox: all read-only, one project",
            "--ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --bind $S/p $S/p --ro-bind $S/p/.git \
             $S/p/.git --chdir $S/p",
        )
        .setup(|w| w.files(&["p/.git/config", "p/main.c", "other/x"]))
        .program(Program::Host)
        .act("create", "$S/p/new")
        .act("create", "/tmp/new")
        .act("overwrite", "$S/p/.git/config")
        .parents(&["$S"]),
        case(
            "an agent's sandbox: all writable but what is denied",
            "--bind / / --ro-bind $S/p/.vscode $S/p/.vscode --ro-bind $S/p/.gitconfig $S/p/.gitconfig \
             --tmpfs $S/home --ro-bind /dev/null $S/p/.npmrc --dev-bind /dev /dev --ro-bind-try \
             $S/p/none $S/p/none",
        )
        .setup(|w| w.files(&["p/.vscode/settings", "p/.gitconfig", "p/.npmrc", "home/.ssh/key"]))
        .program(Program::Host)
        .act("create", "$S/p/new")
        .act("overwrite", "$S/p/.gitconfig"),
        case(
            "a desktop application",
            "--perms 0755 --dir /run/user/1000 --tmpfs /run --symlink ../run /var/run --tmpfs /app \
             --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 \
             /lib64 --proc /proc --dev /dev --tmpfs /dev/shm --perms 0700 --dir /run/user/1000 \
             --ro-bind-data 11 /etc/passwd --ro-bind-data 12 /etc/group --file 13 /.flatpak-info \
             --ro-bind-try /etc/localtime /etc/localtime --ro-bind-try /etc/machine-id \
             /etc/machine-id --bind $S/data $S/.var/app/data --symlink $S/.var/app/data /home/link \
             --remount-ro /app --tmpfs /tmp --perms 1777 --dir /tmp/.X11-unix --chmod 0755 /run --dir \
             /var/tmp --mqueue /dev/mqueue",
        )
        .setup(|w| w.files(&["data/x"]))
        .fd(11, Given::Text("user:x:1000:1000::/:/bin/sh"))
        .fd(12, Given::Text("user:x:1000:"))
        .fd(13, Given::Text("[Application]"))
        .parents(&["/home", "/var"]),
        case(
            "a build: a root made of parts, one writable output",
            "--tmpfs / --ro-bind $T /.show-tree --ro-bind /usr /usr --symlink usr/bin /bin --symlink \
             usr/lib /lib --ro-bind-try /usr/lib64 /lib64 --dir /etc --file 11 /etc/passwd --ro-bind \
             $S/src /build/src --bind $S/out /build/out --tmpfs /build/tmp --dev /dev --proc /proc \
             --chdir /build/src --remount-ro /",
        )
        .setup(|w| w.files(&["src/Makefile", "src/main.c", "out/.keep"]))
        .program(Program::At("/.show-tree"))
        .fd(11, Given::Text("nobody:x:65534:65534::/:/bin/false"))
        .act("create", "/build/out/a.o")
        .act("create", "/build/src/a.o")
        .act("create", "/build/new")
        .parents(&["/build"]),
        case(
            "a build: many inputs, each a file of its own",
            "--dir /in --ro-bind $S/a/1 /in/a/1 --ro-bind $S/a/2 /in/a/2 --ro-bind $S/b/1 \
             /in/b/deep/1 --ro-bind $S/b /in/b/whole --bind $S/out /out --tmpfs /tmp --remount-ro /in \
             --chdir /out",
        )
        .setup(|w| w.files(&["a/1", "a/2", "b/1", "b/2", "out/.keep"]))
        .both_refuse("/in"),
        case(
            "a shell in another distribution's root",
            "--bind $S/root / --proc /proc --dev /dev --ro-bind /etc/resolv.conf /etc/resolv.conf \
             --bind $S/home /root --tmpfs /tmp --chdir /root",
        )
        .setup(|w| {
            w.files(&["root/etc/resolv.conf", "root/bin/sh", "home/.profile"]);
            ["root/proc", "root/dev", "root/tmp", "root/root"].iter().for_each(|name| w.dir(name));
            w.show_tree("root/tree");
        })
        .program(Program::At("/tree")),
        case(
            "a game launcher: links for every library directory",
            "--symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink \
             usr/lib32 /lib32 --symlink usr/lib64 /lib64 --symlink /usr/lib/locale \
             /usr/lib/locale-link --ro-bind $S/rt /usr --ro-bind $S/over /overrides --symlink \
             /overrides/lib /usr/link",
        )
        .setup(|w| w.files(&["rt/bin/x", "rt/lib/l", "over/lib/l"]))
        .both_refuse("/usr"),
        case(
            "a home directory that is empty but for a few things",
            "--ro-bind / / --tmpfs $S/home --bind $S/home/.cache $S/home/.cache --ro-bind \
             $S/home/.gitconfig $S/home/.gitconfig --dir $S/home/.config --symlink .cache \
             $S/home/cache",
        )
        .setup(|w| w.files(&["home/.cache/x", "home/.gitconfig", "home/.ssh/id"]))
        .program(Program::Host)
        .act("create", "$S/home/.cache/new")
        .act("overwrite", "$S/home/.gitconfig"),
    ]
}

/// What one of the two, or both, will not do.
fn refused() -> Vec<Case> {
    let d = |w: &crate::case::World| w.files(&["d/f", "e/g"]);
    vec![
        case("a source that is not there", "--bind $S/no /d")
            .both_refuse("cannot open $S/no: No such file or directory"),
        case("a directory over a file", "--ro-bind $S/d /d --bind $S/e /d/f")
            .setup(d)
            .both_refuse("--bind $S/e /d/f"),
        case("a file over a directory", "--ro-bind $S /w --bind $S/d/f /w/e")
            .setup(d)
            .both_refuse("--bind $S/d/f /w/e"),
        case("a tmpfs over a file", "--ro-bind $S/d /d --tmpfs /d/f").setup(d).both_refuse("--tmpfs /d/f"),
        case("a directory where a file is", "--ro-bind $S/d /d --dir /d/f")
            .setup(d)
            .both_refuse("--dir /d/f"),
        case("a parent that is a file", "--ro-bind $S/d /d --dir /d/f/below")
            .setup(d)
            .both_refuse("--dir /d/f/below"),
        case("a mount point that is missing on a read-only bind", "--ro-bind $S/d /d --tmpfs /d/new")
            .setup(d)
            .both_refuse("--tmpfs /d/new"),
        case("a file that is missing on a read-only bind", "--ro-bind $S/d /d --ro-bind $S/e/g /d/new")
            .setup(d)
            .both_refuse("--ro-bind $S/e/g /d/new"),
        case("a symlink where another one is", "--symlink a /l --symlink b /l").both_refuse("--symlink b /l"),
        case("a symlink where a file is", "--ro-bind $S/d /d --symlink x /d/f")
            .setup(d)
            .both_refuse("--symlink x /d/f"),
        case("chmod of what is not there", "--chmod 0700 /no").both_refuse("--chmod 0700 /no"),
        case("chmod on a read-only bind", "--ro-bind $S/d /d --chmod 0700 /d/f")
            .setup(d)
            .both_refuse("--chmod 0700 /d/f"),
        case("what is no mount point cannot be made read-only", "--dir /d --remount-ro /d")
            .both_refuse("--remount-ro /d"),
        case("a mount point that is missing below a writable bind", "--bind $S/d /d --tmpfs /d/new/deep")
            .setup(d)
            .srt_refuses("--placeholders", STAYS),
        case(
            "the same with --placeholders",
            "--placeholders --bind $S/d /d --tmpfs /d/new/deep --ro-bind $S/e/g /d/file --ro-bind \
             $S/e /d/dir",
        )
        .bwrap("--bind $S/d /d --tmpfs /d/new/deep --ro-bind $S/e/g /d/file --ro-bind $S/e /d/dir")
        .setup(d),
        case("a file made over one below a writable bind", "--bind $S/d /d --file 11 /d/f")
            .setup(d)
            .fd(11, Given::Text("new")),
        case("a file made below a writable bind", "--bind $S/d /d --file 11 /d/new")
            .setup(d)
            .fd(11, Given::Text("new")),
        case(
            "a directory and a symlink made below a writable bind",
            "--bind $S/d /d --dir /d/dir --symlink x /d/link",
        )
        .setup(d),
        case(
            "a protected file where there is no place to hide a pin",
            "--bind $S/root / --ro-bind $S/f /d/f",
        )
        .setup(|w| {
            w.files(&["root/d/f", "f"]);
            w.show_tree("root/tree");
        })
        .program(Program::At("/tree"))
        .srt_refuses(
            "add a mount of a directory",
            "bubblewrap lets the command rename /d and put its own there; the pins that forbid it need a \
                 mounted directory to hide below",
        ),
        case("a file that is missing below a writable bind", "--bind $S/d /d --ro-bind /dev/null /d/.env")
            .setup(d)
            .srt_refuses("--placeholders", STAYS),
        case("a descriptor that is not open", "--bind-fd 77 /d").both_refuse("77"),
        case("a loop of symlinks in the middle of a destination", "--symlink a /b --symlink b /a --dir /a/c")
            .both_refuse("--dir /a/c"),
        case("a source below a file", "--bind $S/d/f/x /x").setup(d).both_refuse("cannot open $S/d/f/x"),
        case("a source that the user may not reach", "--bind $S/closed/d /d")
            .setup(|w| {
                w.files(&["closed/d/f"]);
                w.roots("closed");
                w.mode("closed", 0o700);
            })
            .only(Who::User)
            .both_refuse("cannot open $S/closed/d: Permission denied"),
        case("a source that the user may not reach is not passed over by -try", "--bind-try $S/closed/d /d")
            .setup(|w| {
                w.files(&["closed/d/f"]);
                w.roots("closed");
                w.mode("closed", 0o700);
            })
            .only(Who::User)
            .both_refuse("$S/closed/d: Permission denied"),
        case("a file as the root", "--ro-bind $S/d/f /").setup(d).both_refuse("--ro-bind $S/d/f /"),
        case("a symlink as the root", "--symlink a /").both_refuse("--symlink a /"),
        case("data as the root", "--file 11 /").fd(11, Given::Text("x")).both_refuse("--file 11 /"),
        case("a file where a directory is", "--dir /d --file 11 /d")
            .fd(11, Given::Text("x"))
            .both_refuse("--file 11 /d"),
        case("an option that nobody knows", "--dir /a --nope /b").both_refuse("--nope"),
        case("a mode that is none", "--perms 0999 --dir /a").both_refuse("--perms"),
        case("a mode for what has none", "--perms 0700 --bind $S /a").both_refuse("--perms"),
        case("a size of nothing", "--size 0 --tmpfs /a").both_refuse("--size"),
        case("a size for what has none", "--size 4096 --dir /a").both_refuse("--size"),
        case("options from a descriptor that is not open", "--args 77").both_refuse("--args"),
    ]
}
