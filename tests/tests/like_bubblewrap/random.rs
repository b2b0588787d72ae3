//! Lists of mounts from a random number generator. A list grows as long as both programs take it, so that most have
//! several operations that work upon each other.

use crate::case::{Case, case};

const DESTINATIONS: [&str; 18] = [
    "/",
    "/a",
    "/a/b",
    "/a/b/c",
    "/a/../t",
    "/d",
    "/d/in",
    "/d/in/ner",
    "/d/f",
    "/d/in/f",
    "/d/link",
    "/d/link/x",
    "/d/flink",
    "/d/abs",
    "/d/../d/in",
    "/d/new",
    "/t/x/y",
    "x/y",
];
const SOURCES: [&str; 10] = [
    "$S/d",
    "$S/d/in",
    "$S/d/f",
    "$S/d/in/f",
    "$S/d/link",
    "$S/d/flink",
    "$S/e",
    "$S/no",
    "/dev/null",
    "$S/s",
];

/// The generator and the list so far.
pub struct Lists {
    state: u64,
    list: Vec<String>,
    /// The length without the operation that was added last.
    before: usize,
}

impl Lists {
    pub fn new(seed: u64) -> Self {
        Self { state: seed.max(1), list: vec![], before: 0 }
    }

    /// Drops the last operation again if somebody refused it.
    pub fn last_was_good(&mut self, good: bool) {
        if !good {
            self.list.truncate(self.before);
        }
    }

    /// One operation more, or a new list. No absolute links: bubblewrap cannot go through them (see the table).
    pub fn next(&mut self) -> Case {
        if self.list.len() > 24 {
            self.list.clear();
        }
        self.before = self.list.len();
        let (source, dest) = (self.one_of(&SOURCES), self.one_of(&DESTINATIONS));
        let mode = self.one_of(&["0700", "0750", "0711", "0", "1777"]);
        let target = self.one_of(&["a", "in", "../t", "nowhere"]);
        let operation: &[&str] = match self.below(14) {
            0 | 1 => &["--bind", source, dest],
            2..=4 => &["--ro-bind", source, dest],
            5 => &["--dev-bind", source, dest],
            6 => &["--ro-bind-try", source, dest],
            7 => &["--tmpfs", dest],
            8 => &["--perms", mode, "--tmpfs", dest],
            9 => &["--dir", dest],
            10 => &["--perms", mode, "--dir", dest],
            11 => &["--symlink", target, dest],
            12 => &["--remount-ro", dest],
            _ => &["--chmod", mode, dest],
        };
        self.list.extend(operation.iter().map(|word| (*word).to_owned()));
        let list = self.list.join(" ");
        case("random", &format!("--placeholders {list}"))
            .bwrap(&list)
            .setup(|w| {
                w.files(&["d/f", "d/in/f", "d/in/ner/f", "e/g"]);
                w.link("in", "d/link");
                w.link("f", "d/flink");
                w.link("/t", "d/abs");
                w.socket("s");
            })
            // Any missing parent may be one that bubblewrap makes private.
            .parents(&["*"])
    }

    fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len())]
    }

    /// xorshift64.
    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % end as u64).expect("small")
    }
}
