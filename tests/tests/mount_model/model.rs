//! What a list of mounts promises, over a tree in memory: names, mounts, which of them can be written, what cannot be
//! moved; and what a command that is let loose there gets done.
//!
//! It is written from the pages and the kernel's rules, not from srt-mount's code, and works by plain walks: no
//! descriptors, no openat2(2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

/// What a name leads to.
#[derive(Clone, Debug)]
enum Kind {
    Directory(BTreeMap<String, usize>),
    File(String),
    Link(String),
}

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Host,
    /// A file system that goes away with the sandbox.
    Own,
    Overlay,
    /// An overlay whose changes stay on the host.
    Upper,
    /// procfs, sysfs, mqueue: what is there, and whether it can be changed, the kernel says.
    Kernel,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    on: On,
    /// Of the owner's bits the owner minds all: nobody inside has CAP_DAC_OVERRIDE.
    mode: u32,
}

/// What the caller hands over.
#[derive(Clone, Debug)]
pub enum Descriptor {
    /// Open on what has this path now; `None`: on what has none any more. Nothing can be read from it.
    On(Option<String>),
    /// Open on a nameless file with this content.
    Holds(String),
}

/// One operation, taken apart.
#[derive(Debug, Default)]
struct Op<'a> {
    option: &'a str,
    operands: Vec<&'a str>,
    dest: &'a str,
    perms: Option<u32>,
}

/// A file, and the mount through which it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    mount: usize,
    node: usize,
}

#[derive(Clone, Debug)]
struct Mount {
    root: usize,
    at: Option<Place>,
    read_only: bool,
    mask: bool,
}

/// Why a list is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Missing,
    NotADirectory,
    /// A link on the way that an earlier run may have left.
    Planted,
    /// A link in the place of the destination itself.
    Link,
    /// A descriptor that is closed, was read before or cannot be, or is open on what is gone.
    Descriptor,
    /// Something would have to be made in a file system of the kernel's: not for this model to say.
    Kernel,
    Other,
}

/// What may be made on the way to a destination, and with which mode.
#[derive(Clone, Copy)]
enum Make {
    Nothing,
    /// Where the sandbox made the file system itself, or with `--placeholders`.
    MountPoints(u32),
    Everything(u32),
}

struct Dest {
    /// From the root to the directory that holds it.
    way: Vec<Place>,
    /// `None`: the path ends in `..`, and it is that directory itself.
    name: Option<String>,
    there: Option<Place>,
}

impl Dest {
    fn holder(&self) -> Place {
        self.way[self.way.len() - 1]
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// The host's tree, and the sandbox's mounts over it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Shared by all copies of the model until they differ.
    nodes: Vec<Rc<Node>>,
    /// How many of them are above the part of the host that is known.
    above: usize,
    mounts: Vec<Mount>,
    /// Directories above something protected.
    pins: BTreeSet<usize>,
    /// The directory that was mounted last. Pins lie beneath another mount on it, so it cannot be moved by another name
    /// either: no promise, but so it is.
    cover: Option<usize>,
    /// No path leads through a link in these.
    planted: BTreeSet<usize>,
    placeholders: bool,
    /// Something of the host is writable by now.
    pinning: bool,
    /// By the number that the options say. All others are closed.
    pub descriptors: Rc<BTreeMap<String, Descriptor>>,
}

fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

fn octal(mode: &str) -> u32 {
    u32::from_str_radix(mode, 8).expect("octal")
}

/// The mode of missing directories above something: whom that keeps out, they keep out (srt-mount/README.md).
fn parents(mode: u32) -> u32 {
    let closed = [0o070, 0o007].into_iter().filter(|class| mode & class == 0);
    closed.fold(0o755, |parents, class| parents & !class)
}

impl<'a> Op<'a> {
    fn read(words: &'a [String]) -> Self {
        let mut op = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "--perms" => op.perms = words.next().map(octal),
                // No name and no right depends on it.
                "--size" => drop(words.next()),
                "--overlay-src" => op.operands.extend(words.next()),
                option => {
                    op.option = option;
                    op.operands.extend(words.by_ref());
                    op.dest = op.operands.pop().expect("a destination");
                }
            }
        }
        op
    }

    /// Whether it lets the sandbox write the host's files.
    fn writes(&self) -> bool {
        ["--bind", "--bind-try", "--dev-bind", "--bind-fd", "--overlay"].contains(&self.option)
    }

    /// How many of its operands are only read: of an overlay's all but RW and WORK.
    fn reads_of(&self) -> usize {
        let count = self.operands.len();
        if self.option == "--overlay" {
            count - 2
        } else if self.writes() {
            0
        } else {
            count
        }
    }

    /// Whether it makes a file of what a descriptor holds.
    fn reads(&self) -> bool {
        ["--file", "--bind-data", "--ro-bind-data"].contains(&self.option)
    }
}

/// What `--dev` makes.
const DEVICES: [&str; 14] = [
    "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
    "urandom", "zero",
];

/// What a file becomes when an attack writes it.
const OWNED: &str = "OWNED\n";

/// Where RW and WORK lie.
pub const UPPER: &str = "u";

impl Model {
    /// The host: `top` and all below it. Above it there is nothing but the way.
    pub fn of_host(top: &Path) -> Self {
        let root = Node { kind: Kind::Directory(BTreeMap::new()), on: On::Host, mode: 0o755 };
        let mount = Mount { root: 0, at: None, read_only: true, mask: false };
        let mut host = Self {
            nodes: vec![Rc::new(root)],
            above: 0,
            mounts: vec![mount],
            pins: BTreeSet::new(),
            cover: None,
            planted: BTreeSet::new(),
            placeholders: false,
            pinning: false,
            descriptors: Rc::default(),
        };
        let mut node = 0;
        for name in names(top.to_str().expect("UTF-8")) {
            node = host.add(node, name, Kind::Directory(BTreeMap::new()), On::Host, 0o755);
        }
        host.above = node;
        host.scan(node, top);
        host
    }

    fn scan(&mut self, node: usize, path: &Path) {
        for entry in fs::read_dir(path).expect("a directory") {
            let entry = entry.expect("an entry");
            let (path, name) = (entry.path(), entry.file_name().into_string().expect("UTF-8"));
            let mode = entry.metadata().expect("a mode").permissions().mode() & 0o7777;
            let kind = entry.file_type().expect("a type");
            // What an overlay has removed.
            if kind.is_char_device() {
                continue;
            }
            let kind = if kind.is_symlink() {
                Kind::Link(fs::read_link(&path).expect("a link").to_str().expect("UTF-8").to_owned())
            } else if kind.is_dir() {
                Kind::Directory(BTreeMap::new())
            } else {
                Kind::File(fs::read_to_string(&path).expect("a file"))
            };
            let is_directory = matches!(kind, Kind::Directory(_));
            let node = self.add(node, &name, kind, On::Host, mode);
            if is_directory {
                self.scan(node, &path);
            }
        }
    }

    fn node(&mut self, kind: Kind, on: On, mode: u32) -> usize {
        self.nodes.push(Rc::new(Node { kind, on, mode }));
        self.nodes.len() - 1
    }

    fn add(&mut self, parent: usize, name: &str, kind: Kind, on: On, mode: u32) -> usize {
        let node = self.node(kind, on, mode);
        self.children(parent).insert(name.to_owned(), node);
        node
    }

    fn children(&mut self, node: usize) -> &mut BTreeMap<String, usize> {
        match &mut Rc::make_mut(&mut self.nodes[node]).kind {
            Kind::Directory(children) => children,
            other => panic!("{other:?} is no directory"),
        }
    }

    fn child(&self, node: usize, name: &str) -> Result<Option<usize>> {
        match &self.nodes[node].kind {
            Kind::Directory(children) => Ok(children.get(name).copied()),
            _ => Err(Refusal::NotADirectory),
        }
    }

    /// What is left on the host at and below `top`: a line for each path. What overlayfs leaves is its own affair.
    pub fn host(&self, top: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let way = self.walk(&self.mounts[..1], top.to_str().expect("UTF-8"), false, &BTreeSet::new());
        let mut left = vec![(String::new(), way.expect("top").last().expect("top").node)];
        while let Some((path, node)) = left.pop() {
            let mode = self.nodes[node].mode;
            let what = match &self.nodes[node].kind {
                Kind::File(text) => format!("file {mode:o} {text:?}"),
                Kind::Link(target) => format!("link to {target}"),
                Kind::Directory(children) => {
                    let children = children.iter().filter(|(name, _)| !(path.is_empty() && *name == UPPER));
                    left.extend(children.map(|(name, child)| (format!("{path}/{name}"), *child)));
                    format!("directory {mode:o}")
                }
            };
            found.insert(path, what);
        }
        found
    }

    /// Whether a file that was there at the start has another content or mode.
    pub fn has_changed(&self, start: &Self) -> bool {
        let mut files = start.nodes.iter().zip(&self.nodes);
        files.any(|(was, is)| match (&was.kind, &is.kind) {
            (Kind::File(was), Kind::File(is)) if was != is => true,
            _ => was.mode != is.mode,
        })
    }

    /// The mount on top of all that lie at this place.
    fn top(mounts: &[Mount], mut place: Place) -> Place {
        while let Some(mount) = mounts.iter().rposition(|mount| mount.at == Some(place)) {
            place = Place { mount, node: mounts[mount].root };
        }
        place
    }

    /// path_resolution(7): all directories from the root to what `path` leads to. No link of the `planted` directories
    /// may be on the way, and below them none either.
    fn walk(
        &self,
        mounts: &[Mount],
        path: &str,
        follow_last: bool,
        planted: &BTreeSet<usize>,
    ) -> Result<Vec<Place>> {
        let mut way = vec![Place { mount: 0, node: 0 }];
        let mut ahead: VecDeque<String> = names(path).map(str::to_owned).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            let here = way[way.len() - 1];
            if name == ".." && self.is_directory(here.node) {
                way.truncate((way.len() - 1).max(1));
                continue;
            }
            let node = self.child(here.node, &name)?.ok_or(Refusal::Missing)?;
            match &self.nodes[node].kind {
                Kind::Link(target) if follow_last || !ahead.is_empty() => {
                    links += 1;
                    if way.iter().any(|place| planted.contains(&place.node)) {
                        return Err(Refusal::Planted);
                    }
                    if links > 40 {
                        return Err(Refusal::Other);
                    }
                    if target.starts_with('/') {
                        way.truncate(1);
                    }
                    ahead = names(target).map(str::to_owned).chain(ahead).collect();
                }
                _ => way.push(Self::top(mounts, Place { node, ..here })),
            }
        }
        Ok(way)
    }

    fn is_directory(&self, node: usize) -> bool {
        matches!(self.nodes[node].kind, Kind::Directory(_))
    }
}

/// The list of mounts.
impl Model {
    /// What this list makes of the host, whose tree is read-only where nothing else is said.
    pub fn built(&self, list: &[Vec<String>], placeholders: bool) -> Result<Self> {
        let mut model = Self { placeholders, ..self.clone() };
        let host = &self.mounts[..1];
        let none = BTreeSet::new();
        let ops: Vec<Op> = list.iter().map(|op| Op::read(op)).collect();
        // A descriptor is read to its end: for a second file there is nothing left.
        let mut read = BTreeSet::new();
        if !ops.iter().filter(|op| op.reads()).all(|op| read.insert(op.operands[0])) {
            return Err(Refusal::Descriptor);
        }
        // What is open is where it is now, whatever its name was when it was opened.
        let sources = |op: &Op| -> Vec<Option<String>> {
            match op.option {
                "--bind-fd" | "--ro-bind-fd" => match self.descriptors.get(op.operands[0]) {
                    Some(Descriptor::On(path)) => vec![path.clone()],
                    _ => vec![None],
                },
                "--bind-data" | "--ro-bind-data" => vec![],
                option if option.contains("bind") || option.contains("overlay") => {
                    op.operands.iter().map(|path| Some((*path).to_owned())).collect()
                }
                _ => vec![],
            }
        };
        // What the sandbox may write, and what else it shows of that.
        for written in [true, false] {
            let sources = |op: &Op| {
                let (all, reads) = (sources(op), op.reads_of());
                if written {
                    all[reads.min(all.len())..].to_vec()
                } else {
                    all[..reads.min(all.len())].to_vec()
                }
            };
            for source in ops.iter().flat_map(sources).flatten() {
                let Ok(way) = self.walk(host, &source, true, &none) else { continue };
                if written || way.iter().any(|place| model.planted.contains(&place.node)) {
                    model.planted.insert(way[way.len() - 1].node);
                }
            }
        }
        let mut opened = vec![];
        for op in &ops {
            let mut nodes = vec![];
            for source in sources(op) {
                match self.walk(host, &source.ok_or(Refusal::Descriptor)?, true, &model.planted) {
                    Ok(way) => nodes.push(way[way.len() - 1].node),
                    Err(Refusal::Missing) if op.option.ends_with("-try") => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            opened.push(nodes);
        }
        let any_writes = ops.iter().any(Op::writes);
        for (op, sources) in ops.iter().zip(opened) {
            model.apply(op, &sources, any_writes)?;
        }
        Ok(model)
    }

    fn apply(&mut self, op: &Op, sources: &[usize], any_writes: bool) -> Result<()> {
        let dest = op.dest;
        let directory = || Kind::Directory(BTreeMap::new());
        match op.option {
            "--tmpfs" => {
                let mode = op.perms.unwrap_or(0o755);
                let root = self.node(directory(), On::Own, mode);
                self.mount(root, dest, false, parents(mode))
            }
            "--dev" => {
                let root = self.node(directory(), On::Own, 0o755);
                for name in DEVICES {
                    self.add(root, name, Kind::File(String::new()), On::Kernel, 0o666);
                }
                self.mount(root, dest, false, 0o755)
            }
            "--proc" | "--proc-pids" | "--sys" | "--mqueue" => {
                let root = self.node(directory(), On::Kernel, 0o555);
                self.mount(root, dest, false, 0o755)
            }
            "--ro-overlay" | "--tmp-overlay" | "--overlay" => {
                if !sources.iter().all(|layer| self.is_directory(*layer)) {
                    return Err(Refusal::Other);
                }
                // The last one is the highest. WORK is none.
                let on = if op.writes() { On::Upper } else { On::Overlay };
                let layers = &sources[..sources.len() - usize::from(op.writes())];
                let root = self.overlay(&layers.iter().rev().copied().collect::<Vec<_>>(), on);
                if any_writes {
                    self.planted.insert(root);
                }
                self.mount(root, dest, op.option == "--ro-overlay", 0o755)?;
                self.pinning |= op.writes();
                Ok(())
            }
            "--dir" => {
                let mode = op.perms.unwrap_or(0o755);
                let dest = self.resolve(dest, Make::Everything(parents(mode)))?;
                match (dest.there, &dest.name) {
                    (Some(there), _) if self.is_directory(there.node) => Ok(()),
                    (None, Some(name)) => self.make(dest.holder(), name, directory(), mode, true).map(drop),
                    _ => Err(Refusal::Other),
                }
            }
            "--mask" | "--mask-try" => self.mask(dest, op.option == "--mask-try"),
            "--remount-ro" => {
                let dest = self.resolve(dest, Make::Nothing)?;
                let there = dest.there.ok_or(Refusal::Missing)?;
                if self.mounts[there.mount].root != there.node {
                    return Err(Refusal::Other);
                }
                self.mounts[there.mount].read_only = true;
                self.protect(&dest);
                Ok(())
            }
            "--chmod" => {
                let there = self.resolve(dest, Make::Nothing)?.there.ok_or(Refusal::Missing)?;
                if self.nodes[there.node].on == On::Kernel {
                    return Err(Refusal::Kernel);
                }
                if self.mounts[there.mount].read_only {
                    return Err(Refusal::Other);
                }
                Rc::make_mut(&mut self.nodes[there.node]).mode = octal(op.operands[0]);
                Ok(())
            }
            "--symlink" => {
                let (way, name) = self.holder(dest, Make::Everything(0o755))?;
                let (here, name) = (way[way.len() - 1], name.ok_or(Refusal::Other)?);
                let link = Kind::Link(op.operands[0].to_owned());
                match self.child(here.node, &name)?.map(|node| &self.nodes[node].kind) {
                    Some(Kind::Link(target)) if *target == op.operands[0] => Ok(()),
                    Some(_) => Err(Refusal::Other),
                    None => self.make(here, &name, link, 0o777, true).map(drop),
                }
            }
            _ if op.reads() => {
                let descriptors = Rc::clone(&self.descriptors);
                let Some(Descriptor::Holds(text)) = descriptors.get(op.operands[0]) else {
                    return Err(Refusal::Descriptor);
                };
                let file = Kind::File(text.clone());
                if op.option == "--file" {
                    return self.file(dest, file, op.perms.unwrap_or(0o666));
                }
                let mode = op.perms.unwrap_or(0o600);
                let root = self.node(file, On::Own, mode);
                self.mount(root, dest, op.option == "--ro-bind-data", parents(mode))
            }
            _ => {
                let Some(source) = sources.first() else { return Ok(()) };
                self.mount(*source, dest, !op.writes(), 0o755)?;
                self.pinning |= op.writes();
                Ok(())
            }
        }
    }

    /// A file that is there keeps its mode; what it holds is replaced.
    fn file(&mut self, dest: &str, file: Kind, mode: u32) -> Result<()> {
        let dest = self.resolve(dest, Make::Everything(parents(mode)))?;
        let name = dest.name.as_ref().ok_or(Refusal::Other)?;
        match dest.there {
            None => self.make(dest.holder(), name, file, mode, true).map(drop),
            Some(there) if self.is_directory(there.node) || self.mounts[there.mount].read_only => {
                Err(Refusal::Other)
            }
            Some(there) => {
                Rc::make_mut(&mut self.nodes[there.node]).kind = file;
                Ok(())
            }
        }
    }

    fn mask(&mut self, path: &str, optional: bool) -> Result<()> {
        let found = self.resolve(path, Make::Nothing).and_then(|dest| match dest.there {
            Some(there) => Ok((dest, there)),
            None => Err(Refusal::Missing),
        });
        let (dest, there) = match found {
            Err(Refusal::Missing | Refusal::NotADirectory) if optional => return Ok(()),
            Err(Refusal::Missing) if self.is_masked(path)? => return Ok(()),
            Err(Refusal::Missing) if self.placeholders => self.mount_point(path, false, 0o755)?,
            found => found?,
        };
        let (kind, mode) = match self.is_directory(there.node) {
            true => (Kind::Directory(BTreeMap::new()), 0o555),
            false => (Kind::File(String::new()), 0o444),
        };
        let root = self.node(kind, On::Own, mode);
        self.attach(&dest, Mount { root, at: Some(there), read_only: true, mask: true });
        Ok(())
    }

    /// Whether a path that does not exist would lie below a mask.
    fn is_masked(&mut self, path: &str) -> Result<bool> {
        for above in Path::new(path).ancestors().skip(1) {
            match self.resolve(above.to_str().expect("UTF-8"), Make::Nothing) {
                Ok(Dest { there: Some(there), .. }) => return Ok(self.mounts[there.mount].mask),
                Ok(_) | Err(Refusal::Missing) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(false)
    }

    /// Layers, the highest first, as one tree.
    fn overlay(&mut self, layers: &[usize], on: On) -> usize {
        let mode = self.nodes[layers[0]].mode;
        if !self.is_directory(layers[0]) {
            return self.node(self.nodes[layers[0]].kind.clone(), on, mode);
        }
        // What is no directory hides what lies below it.
        let merged: Vec<usize> =
            layers.iter().copied().take_while(|layer| self.is_directory(*layer)).collect();
        let mut below: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for layer in merged {
            for (name, child) in self.children(layer).clone() {
                below.entry(name).or_default().push(child);
            }
        }
        let children = below.into_iter().map(|(name, layers)| (name, self.overlay(&layers, on))).collect();
        self.node(Kind::Directory(children), on, mode)
    }

    fn mount(&mut self, root: usize, dest: &str, read_only: bool, parents: u32) -> Result<()> {
        let (dest, there) = self.mount_point(dest, self.is_directory(root), parents)?;
        self.attach(&dest, Mount { root, at: Some(there), read_only, mask: false });
        Ok(())
    }

    fn attach(&mut self, dest: &Dest, mount: Mount) {
        self.protect(dest);
        if self.is_directory(mount.root) {
            self.cover = Some(mount.root);
        }
        self.mounts.push(mount);
    }

    fn mount_point(&mut self, path: &str, directory: bool, parents: u32) -> Result<(Dest, Place)> {
        let dest = self.resolve(path, Make::MountPoints(parents))?;
        match (dest.there, &dest.name) {
            (Some(there), _) if self.is_directory(there.node) == directory => Ok((dest, there)),
            (None, Some(name)) => {
                let (kind, mode) = match directory {
                    true => (Kind::Directory(BTreeMap::new()), 0o755),
                    false => (Kind::File(String::new()), 0o444),
                };
                let there = self.make(dest.holder(), name, kind, mode, self.placeholders)?;
                Ok((dest, there))
            }
            _ => Err(Refusal::Other),
        }
    }

    /// Where a destination is, which must not be a link itself.
    fn resolve(&mut self, path: &str, make: Make) -> Result<Dest> {
        let (way, name) = self.holder(path, make)?;
        let here = way[way.len() - 1];
        let there = match &name {
            None => Some(here),
            Some(name) => {
                self.child(here.node, name)?.map(|node| Self::top(&self.mounts, Place { node, ..here }))
            }
        };
        match there {
            Some(there) if matches!(self.nodes[there.node].kind, Kind::Link(_)) => Err(Refusal::Link),
            _ => Ok(Dest { way, name, there }),
        }
    }

    /// The way to the directory that holds a destination, made as far as it may be, and the name there.
    fn holder(&mut self, path: &str, make: Make) -> Result<(Vec<Place>, Option<String>)> {
        let mut above: Vec<&str> = names(path).collect();
        let name = if above.last() == Some(&"..") { None } else { above.pop() };
        let mut depth = above.len();
        let mut way = loop {
            match self.walk(&self.mounts, &above[..depth].join("/"), true, &self.planted) {
                Err(Refusal::Missing) if depth > 0 => depth -= 1,
                way => break way?,
            }
        };
        for name in &above[depth..] {
            let (mode, permitted) = match make {
                Make::Nothing => return Err(Refusal::Missing),
                Make::MountPoints(mode) => (mode, self.placeholders),
                Make::Everything(mode) => (mode, true),
            };
            match *name {
                ".." => way.truncate((way.len() - 1).max(1)),
                name => {
                    let directory = Kind::Directory(BTreeMap::new());
                    way.push(self.make(way[way.len() - 1], name, directory, mode, permitted)?);
                }
            }
        }
        match self.is_directory(way[way.len() - 1].node) {
            true => Ok((way, name.map(str::to_owned))),
            false => Err(Refusal::NotADirectory),
        }
    }

    /// Makes a file. On the host it stays, so there it must be permitted.
    fn make(&mut self, here: Place, name: &str, kind: Kind, mode: u32, permitted: bool) -> Result<Place> {
        let on = self.nodes[here.node].on;
        if on == On::Kernel {
            return Err(Refusal::Kernel);
        }
        let refused = matches!(on, On::Host | On::Upper) && !permitted || self.mounts[here.mount].read_only;
        if refused || self.child(here.node, name)?.is_some() {
            return Err(Refusal::Other);
        }
        Ok(Place { node: self.add(here.node, name, kind, on, mode), ..here })
    }

    /// Between a writable bind and what is mounted below it no directory can be moved.
    fn protect(&mut self, dest: &Dest) {
        let above = if dest.name.is_some() { dest.way.len() } else { dest.way.len() - 1 };
        let mut writable = false;
        for place in dest.way[..above].iter().filter(|_| self.pinning) {
            let (mount, node) = (&self.mounts[place.mount], &self.nodes[place.node]);
            if mount.root == place.node {
                writable = matches!(node.on, On::Host | On::Upper) && !mount.read_only;
            } else if writable {
                self.pins.insert(place.node);
            }
        }
    }

    /// How many files below a node were written inside.
    fn owned(&self, node: usize) -> usize {
        match &self.nodes[node].kind {
            Kind::Directory(children) => children.values().map(|child| self.owned(*child)).sum(),
            Kind::File(text) => usize::from(text == OWNED),
            Kind::Link(_) => 0,
        }
    }

    /// How many files were written through an overlay whose changes stay on the host.
    pub fn owned_by_upper(&self) -> usize {
        let roots =
            self.mounts.iter().map(|mount| mount.root).filter(|root| self.nodes[*root].on == On::Upper);
        roots.map(|root| self.owned(root)).sum()
    }

    /// And how many are in its directory there.
    pub fn owned_on_host(&self, path: &str) -> usize {
        let way = self.walk(&self.mounts[..1], path, false, &BTreeSet::new());
        self.owned(way.expect("a directory").last().expect("it").node)
    }

    /// Whether something at or below `path` of the host can be written.
    pub fn grants(&self, path: &str) -> bool {
        let host = self.walk(&self.mounts[..1], path, true, &BTreeSet::new()).expect("on the host");
        let mut left = vec![host[host.len() - 1].node];
        while let Some(node) = left.pop() {
            if self.mounts.iter().any(|mount| !mount.read_only && mount.root == node) {
                return true;
            }
            if let Kind::Directory(children) = &self.nodes[node].kind {
                left.extend(children.values());
            }
        }
        false
    }
}

/// What a command does there.
impl Model {
    fn at(&self, path: &str) -> Option<Place> {
        let way = self.walk(&self.mounts, path, true, &BTreeSet::new()).ok()?;
        way.last().copied()
    }

    /// The directory that holds the last name of a path, the name, and what is there beneath all mounts.
    fn entry<'a>(&self, path: &'a str) -> Option<(Place, &'a str, Option<usize>)> {
        let (above, name) = path.rsplit_once('/')?;
        let here = self.at(above)?;
        Some((here, name, self.child(here.node, name).ok()?))
    }

    /// rename(2), unlink(2), rmdir(2): EBUSY for a mount point, by whichever name it is reached.
    fn is_busy(&self, node: usize) -> bool {
        let mounted = |mount: &Mount| mount.at.is_some_and(|at| at.node == node);
        let covers = !self.pins.is_empty() && self.cover == Some(node);
        covers || self.pins.contains(&node) || self.mounts.iter().any(mounted)
    }

    fn is_below(&self, node: usize, above: usize) -> bool {
        let Kind::Directory(children) = &self.nodes[above].kind else { return node == above };
        node == above || children.values().any(|child| self.is_below(node, *child))
    }

    /// What is at a path: `mode`, and `read` or `list` say it. Nothing of what this model does not know: the rest of the
    /// host, and what is the kernel's.
    pub fn look(&self, path: &str) -> Vec<(&'static str, Option<String>)> {
        let Some(place) = self.at(path) else { return vec![("read", None)] };
        if place.node < self.above || self.nodes[place.node].on == On::Kernel {
            return vec![];
        }
        let node = &self.nodes[place.node];
        let (verb, text) = match &node.kind {
            Kind::Directory(children) => ("list", children.keys().cloned().collect::<Vec<_>>().join(" ")),
            Kind::File(text) => ("read", text.trim_end().to_owned()),
            Kind::Link(_) => panic!("{path}: a link is not followed"),
        };
        vec![("mode", Some(format!("{:o}", node.mode))), (verb, (node.mode & 0o400 != 0).then_some(text))]
    }

    /// Does one thing, and says whether it can be done; `None` where that is not for this model to say.
    pub fn attack(&mut self, words: &[&str]) -> Option<bool> {
        Some(self.attempt(words)?.is_some())
    }

    fn attempt(&mut self, words: &[&str]) -> Option<Option<()>> {
        let read_only = |model: &Self, place: Place| model.mounts[place.mount].read_only;
        let path = words[words.len() - 1];
        if words[0] == "truncate-open" {
            let Some(place) = self.at(path) else { return Some(None) };
            let refused = read_only(self, place) || self.nodes[place.node].mode & 0o200 == 0;
            return Some(match &mut Rc::make_mut(&mut self.nodes[place.node]).kind {
                Kind::File(text) if !refused => {
                    *text = OWNED.to_owned();
                    Some(())
                }
                _ => None,
            });
        }
        if words[0] == "chmod-same" {
            let place = self.at(path).filter(|place| !read_only(self, *place));
            let known = place.is_none_or(|place| self.nodes[place.node].on != On::Kernel);
            return known.then(|| place.map(drop));
        }
        let Some((here, name, there)) = self.entry(path) else { return Some(None) };
        if read_only(self, here) {
            return Some(None);
        }
        let on = self.nodes[here.node].on;
        if on == On::Kernel {
            return None;
        }
        let can_go = |model: &Self, node: usize, directory: bool| {
            let empty = !matches!(&model.nodes[node].kind, Kind::Directory(children) if !children.is_empty());
            model.is_directory(node) == directory && empty && !model.is_busy(node)
        };
        Some(match (words[0], there) {
            ("create" | "mkdir" | "symlink", None) => {
                let (kind, mode) = match words[0] {
                    "create" => (Kind::File(OWNED.to_owned()), 0o644),
                    "mkdir" => (Kind::Directory(BTreeMap::new()), 0o755),
                    _ => (Kind::Link(words[1].to_owned()), 0o777),
                };
                self.add(here.node, name, kind, on, mode);
                Some(())
            }
            ("unlink", Some(node)) | ("rmdir", Some(node)) if can_go(self, node, words[0] == "rmdir") => {
                self.children(here.node).remove(name).map(drop)
            }
            ("rename" | "exchange", there) => {
                let Some((from, from_name, Some(node))) = self.entry(words[1]) else { return Some(None) };
                if read_only(self, from) || from.mount != here.mount {
                    return Some(None);
                }
                if there == Some(node) {
                    // Two names of one file: rename(2) does nothing, and says so or not.
                    return None;
                }
                if matches!(on, On::Overlay | On::Upper) {
                    // Without redirect_dir a directory of a lower layer stays (overlayfs: EXDEV).
                    return None;
                }
                let fits = match there {
                    None => words[0] == "rename",
                    Some(there) => {
                        words[0] == "exchange" && !self.is_busy(there) && !self.is_below(from.node, there)
                    }
                };
                if !fits || self.is_busy(node) || self.is_below(here.node, node) {
                    return Some(None);
                }
                self.children(from.node).remove(from_name);
                self.children(here.node).insert(name.to_owned(), node);
                if let Some(there) = there {
                    self.children(from.node).insert(from_name.to_owned(), there);
                }
                Some(())
            }
            _ => None,
        })
    }
}
