//! The pages of the repository: what in them a shell understands, and what else a test can check.

use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file of the repository.
#[derive(Debug)]
pub struct Page {
    /// Its path from the top of the repository.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// What stands between a fence that begins with `sh` and the next one.
#[derive(Clone, Debug)]
pub struct Block {
    /// The page, for messages.
    pub page: String,
    /// The line of its first fence.
    pub line: usize,
    /// The word after `sh`: what else has to be there. Nothing for most.
    pub fixture: String,
    /// The commands.
    pub text: String,
    /// What they print on stdout and stderr together, if a block `output` follows at once.
    pub output: Option<String>,
}

/// The top of the repository.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// All pages: those at the top, of the tools and of the tests.
pub fn pages() -> Vec<Page> {
    let top = fs::read_dir(workspace()).expect("the workspace").map(|entry| entry.expect("an entry").path());
    let tool =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"srt-"));
    let own = ["", "tests", "tests/benches"].map(|directory| workspace().join(directory));
    let mut paths: Vec<PathBuf> = top
        .filter(tool)
        .chain(own)
        .flat_map(|directory| {
            fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path())
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.sort();
    let page = |path: PathBuf| Page {
        name: path.strip_prefix(workspace()).expect("below it").to_str().expect("UTF-8").to_owned(),
        text: fs::read_to_string(&path).expect("a page"),
    };
    paths.into_iter().map(page).collect()
}

/// One page.
pub fn page(name: &str) -> Page {
    pages().into_iter().find(|page| page.name == name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// README's recipe for an agent on a project. Of the page as it was built: a machine that tests/kernels boots has no pages.
pub fn agent_recipe() -> String {
    let page = Page { name: "README.md".to_owned(), text: include_str!("../../README.md").to_owned() };
    let recipe = page.blocks().into_iter().find(|block| block.text.contains("$PWD/.env"));
    recipe.expect("the recipe").text
}

impl Page {
    /// The blocks that a shell understands. Anything but those, `output` and `text` is an error: it would not be run.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = vec![];
        let mut inside: Option<&str> = None;
        for (number, line) in self.text.lines().enumerate() {
            let at = format!("{}:{}", self.name, number + 1);
            let block = |blocks: &[Block]| {
                blocks.len().checked_sub(1).unwrap_or_else(|| panic!("{at}: no block before"))
            };
            match (line.strip_prefix("```"), inside) {
                (None, Some(kind)) if kind != "text" => {
                    let last = block(&blocks);
                    let output = &mut blocks[last].output;
                    let text =
                        if kind == "sh" { &mut blocks[last].text } else { output.as_mut().expect("set") };
                    text.push_str(line);
                    text.push('\n');
                }
                (None, _) => {}
                (Some(""), Some(_)) => inside = None,
                (Some("text"), None) => inside = Some("text"),
                (Some("output"), None) => {
                    let last = block(&blocks);
                    assert_eq!(blocks[last].output.replace(String::new()), None, "{at}: a second output");
                    inside = Some("output");
                }
                (Some(info), None) if info.split(' ').next() == Some("sh") => {
                    blocks.push(Block {
                        page: self.name.clone(),
                        line: number + 1,
                        fixture: info["sh".len()..].trim().to_owned(),
                        text: String::new(),
                        output: None,
                    });
                    inside = Some("sh");
                }
                (Some(info), _) => panic!("{at}: a fence with {info:?}"),
            }
        }
        assert_eq!(inside, None, "{}: a block has no end", self.name);
        blocks
    }

    /// The lines that are in no block.
    pub fn prose(&self) -> impl Iterator<Item = &str> {
        let mut inside = false;
        self.text.lines().filter(move |line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
    }

    /// What `#…` in a link to this page can be, as GitHub makes it of the headings.
    pub fn anchors(&self) -> Vec<String> {
        let heading = |line: &str| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        self.prose().filter(|line| line.starts_with('#')).map(heading).collect()
    }

    /// The text from a heading to the next one of its level or above.
    pub fn section(&self, heading: &str) -> String {
        let level = heading.bytes().take_while(|byte| *byte == b'#').count();
        let above = |line: &&str| {
            let depth = line.bytes().take_while(|byte| *byte == b'#').count();
            !(1..=level).contains(&depth)
        };
        let lines = self.text.lines().skip_while(|line| *line != heading).skip(1).take_while(above);
        let section = lines.collect::<Vec<_>>().join("\n");
        assert!(!section.is_empty(), "{} has no section {heading}", self.name);
        section
    }
}

/// The blocks of every page.
pub fn blocks() -> Vec<Block> {
    pages().iter().flat_map(Page::blocks).collect()
}
