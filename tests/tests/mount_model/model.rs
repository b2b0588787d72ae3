//! What a list of mounts promises, over a tree in memory: names, mounts, which of them can be written, what cannot be
//! moved; and what a command that is let loose there gets done.
//!
//! It is written from the pages and the kernel's rules, not from srt-mount's code, and works by plain walks: no
//! descriptors, no openat2(2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
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
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    on: On,
    /// Nobody may write it: an empty file that was made to mount something on.
    fixed: bool,
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
    Other,
}

/// What may be made on the way to a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Make {
    Nothing,
    /// Where the sandbox made the file system itself, or with `--placeholders`.
    MountPoints,
    Everything,
}

struct Dest {
    /// From the root to the directory that holds it.
    way: Vec<Place>,
    /// `None`: the path ends in `..`, and it is that directory itself.
    name: Option<String>,
    there: Option<Place>,
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
}

fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

/// What a file becomes when an attack writes it.
const OWNED: &str = "OWNED\n";

impl Model {
    /// The host: `top` and all below it. Above it there is nothing but the way.
    pub fn of_host(top: &Path) -> Self {
        let root = Node { kind: Kind::Directory(BTreeMap::new()), on: On::Host, fixed: false };
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
        };
        let mut node = 0;
        for name in names(top.to_str().expect("UTF-8")) {
            node = host.add(node, name, Kind::Directory(BTreeMap::new()), On::Host);
        }
        host.above = node;
        host.scan(node, top);
        host
    }

    fn scan(&mut self, node: usize, path: &Path) {
        for entry in fs::read_dir(path).expect("a directory") {
            let entry = entry.expect("an entry");
            let (path, name) = (entry.path(), entry.file_name().into_string().expect("UTF-8"));
            let kind = entry.file_type().expect("a type");
            let kind = if kind.is_symlink() {
                Kind::Link(fs::read_link(&path).expect("a link").to_str().expect("UTF-8").to_owned())
            } else if kind.is_dir() {
                Kind::Directory(BTreeMap::new())
            } else {
                Kind::File(fs::read_to_string(&path).expect("a file"))
            };
            let is_directory = matches!(kind, Kind::Directory(_));
            let node = self.add(node, &name, kind, On::Host);
            if is_directory {
                self.scan(node, &path);
            }
        }
    }

    fn node(&mut self, kind: Kind, on: On) -> usize {
        self.nodes.push(Rc::new(Node { kind, on, fixed: false }));
        self.nodes.len() - 1
    }

    fn add(&mut self, parent: usize, name: &str, kind: Kind, on: On) -> usize {
        let node = self.node(kind, on);
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

    /// What is left on the host at and below `top`: a line for each path.
    pub fn host(&self, top: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let way = self.walk(&self.mounts[..1], top.to_str().expect("UTF-8"), false, &BTreeSet::new());
        let mut left = vec![(String::new(), way.expect("top").last().expect("top").node)];
        while let Some((path, node)) = left.pop() {
            let what = match &self.nodes[node].kind {
                Kind::File(text) => format!("file {text:?}"),
                Kind::Link(target) => format!("link to {target}"),
                Kind::Directory(children) => {
                    left.extend(children.iter().map(|(name, child)| (format!("{path}/{name}"), *child)));
                    "directory".to_owned()
                }
            };
            found.insert(path, what);
        }
        found
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
        let sources = |op: &[String]| -> Vec<String> {
            match op[0].as_str() {
                "--overlay-src" => {
                    op.chunks_exact(2).filter(|pair| pair[0] == op[0]).map(|pair| pair[1].clone()).collect()
                }
                option if option.contains("bind") => vec![op[1].clone()],
                _ => vec![],
            }
        };
        let writes = |op: &&Vec<String>| op[0].starts_with("--bind");
        // What the sandbox may write, and what else it shows of that.
        for written in [true, false] {
            for source in list.iter().filter(|op| writes(op) == written).flat_map(|op| sources(op)) {
                let Ok(way) = self.walk(host, &source, true, &none) else { continue };
                if written || way.iter().any(|place| model.planted.contains(&place.node)) {
                    model.planted.insert(way[way.len() - 1].node);
                }
            }
        }
        let mut opened = vec![];
        for op in list {
            let mut nodes = vec![];
            for source in sources(op) {
                match self.walk(host, &source, true, &model.planted) {
                    Ok(way) => nodes.push(way[way.len() - 1].node),
                    Err(Refusal::Missing) if op[0].ends_with("-try") => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            opened.push(nodes);
        }
        let any_writes = list.iter().any(|op| writes(&op));
        for (op, sources) in list.iter().zip(opened) {
            model.apply(op, &sources, any_writes)?;
        }
        Ok(model)
    }

    fn apply(&mut self, op: &[String], sources: &[usize], any_writes: bool) -> Result<()> {
        let dest = op[op.len() - 1].as_str();
        let directory = || Kind::Directory(BTreeMap::new());
        match op[op.len() - 2].as_str() {
            "--tmpfs" => {
                let root = self.node(directory(), On::Own);
                self.mount(root, dest, false)
            }
            "--ro-overlay" | "--tmp-overlay" => {
                if !sources.iter().all(|layer| self.is_directory(*layer)) {
                    return Err(Refusal::Other);
                }
                let root = self.overlay(&sources.iter().rev().copied().collect::<Vec<_>>());
                if any_writes {
                    self.planted.insert(root);
                }
                self.mount(root, dest, op[op.len() - 2] == "--ro-overlay")
            }
            "--dir" => {
                let dest = self.resolve(dest, Make::Everything)?;
                match (dest.there, &dest.name) {
                    (Some(there), _) if self.is_directory(there.node) => Ok(()),
                    (None, Some(name)) => {
                        self.make(dest.way[dest.way.len() - 1], name, directory(), true).map(drop)
                    }
                    _ => Err(Refusal::Other),
                }
            }
            "--mask" | "--mask-try" => self.mask(dest, op[0] == "--mask-try"),
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
            _ if op[0] == "--symlink" => {
                let (way, name) = self.holder(dest, Make::Everything)?;
                let (here, name) = (way[way.len() - 1], name.ok_or(Refusal::Other)?);
                let link = Kind::Link(op[1].clone());
                match self.child(here.node, &name)?.map(|node| &self.nodes[node].kind) {
                    Some(Kind::Link(target)) if *target == op[1] => Ok(()),
                    Some(_) => Err(Refusal::Other),
                    None => self.make(here, &name, link, true).map(drop),
                }
            }
            _ => {
                let Some(source) = sources.first() else { return Ok(()) };
                let writable = op[0].starts_with("--bind");
                self.mount(*source, dest, !writable)?;
                self.pinning |= writable;
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
            Err(Refusal::Missing) if self.placeholders => self.mount_point(path, false)?,
            found => found?,
        };
        let kind = match self.is_directory(there.node) {
            true => Kind::Directory(BTreeMap::new()),
            false => Kind::File(String::new()),
        };
        let root = self.node(kind, On::Own);
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
    fn overlay(&mut self, layers: &[usize]) -> usize {
        if !self.is_directory(layers[0]) {
            return self.node(self.nodes[layers[0]].kind.clone(), On::Overlay);
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
        let children = below.into_iter().map(|(name, layers)| (name, self.overlay(&layers))).collect();
        self.node(Kind::Directory(children), On::Overlay)
    }

    fn mount(&mut self, root: usize, dest: &str, read_only: bool) -> Result<()> {
        let (dest, there) = self.mount_point(dest, self.is_directory(root))?;
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

    fn mount_point(&mut self, path: &str, directory: bool) -> Result<(Dest, Place)> {
        let dest = self.resolve(path, Make::MountPoints)?;
        match (dest.there, &dest.name) {
            (Some(there), _) if self.is_directory(there.node) == directory => Ok((dest, there)),
            (None, Some(name)) => {
                let kind =
                    if directory { Kind::Directory(BTreeMap::new()) } else { Kind::File(String::new()) };
                let there = self.make(dest.way[dest.way.len() - 1], name, kind, self.placeholders)?;
                Rc::make_mut(&mut self.nodes[there.node]).fixed = !directory;
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
            if make == Make::Nothing {
                return Err(Refusal::Missing);
            }
            let permitted = make == Make::Everything || self.placeholders;
            match *name {
                ".." => way.truncate((way.len() - 1).max(1)),
                name => way.push(self.make(
                    way[way.len() - 1],
                    name,
                    Kind::Directory(BTreeMap::new()),
                    permitted,
                )?),
            }
        }
        match self.is_directory(way[way.len() - 1].node) {
            true => Ok((way, name.map(str::to_owned))),
            false => Err(Refusal::NotADirectory),
        }
    }

    /// Makes a file. On the host it stays, so there it must be permitted.
    fn make(&mut self, here: Place, name: &str, kind: Kind, permitted: bool) -> Result<Place> {
        let on = self.nodes[here.node].on;
        let refused = on == On::Host && !permitted || self.mounts[here.mount].read_only;
        if refused || self.child(here.node, name)?.is_some() {
            return Err(Refusal::Other);
        }
        Ok(Place { node: self.add(here.node, name, kind, on), ..here })
    }

    /// Between a writable bind and what is mounted below it no directory can be moved.
    fn protect(&mut self, dest: &Dest) {
        let above = if dest.name.is_some() { dest.way.len() } else { dest.way.len() - 1 };
        let mut writable = false;
        for place in dest.way[..above].iter().filter(|_| self.pinning) {
            let (mount, node) = (&self.mounts[place.mount], &self.nodes[place.node]);
            if mount.root == place.node {
                writable = node.on == On::Host && !mount.read_only;
            } else if writable {
                self.pins.insert(place.node);
            }
        }
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

    /// What is at a path: `read` and `list` say it. `None` for what this model does not know: the rest of the host.
    pub fn look(&self, path: &str) -> Option<(&'static str, Option<String>)> {
        let place = self.at(path);
        if place.is_some_and(|place| place.node < self.above) {
            return None;
        }
        Some(match place.map(|place| &self.nodes[place.node].kind) {
            Some(Kind::Directory(children)) => {
                ("list", Some(children.keys().cloned().collect::<Vec<_>>().join(" ")))
            }
            Some(Kind::File(text)) => ("read", Some(text.trim_end().to_owned())),
            _ => ("read", None),
        })
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
            let refused = read_only(self, place) || self.nodes[place.node].fixed;
            return Some(match &mut Rc::make_mut(&mut self.nodes[place.node]).kind {
                Kind::File(text) if !refused => {
                    *text = OWNED.to_owned();
                    Some(())
                }
                _ => None,
            });
        }
        let Some((here, name, there)) = self.entry(path) else { return Some(None) };
        if read_only(self, here) {
            return Some(None);
        }
        let on = self.nodes[here.node].on;
        let can_go = |model: &Self, node: usize, directory: bool| {
            let empty = !matches!(&model.nodes[node].kind, Kind::Directory(children) if !children.is_empty());
            model.is_directory(node) == directory && empty && !model.is_busy(node)
        };
        Some(match (words[0], there) {
            ("create" | "mkdir" | "symlink", None) => {
                let kind = match words[0] {
                    "create" => Kind::File(OWNED.to_owned()),
                    "mkdir" => Kind::Directory(BTreeMap::new()),
                    _ => Kind::Link(words[1].to_owned()),
                };
                self.add(here.node, name, kind, on);
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
                if on == On::Overlay {
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
