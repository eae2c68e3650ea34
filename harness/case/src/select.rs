//! Choosing variants: by id patterns, and by expressions over what is known of them.
//!
//! A pattern is an id (`cluster-ip/basic`), a variant's id (`cluster-ip/basic[v4,tcp]`), an area
//! (`cluster-ip`) or a glob over ids (`cluster-ip/*`, `*/basic`).
//! An expression combines sets with `and`, `or`, `not` (also `&`, `|`, `!`, and `-` for "without")
//! and parentheses: `level(must) and not area(udp)`.

use globset::{GlobBuilder, GlobMatcher};
use touchstone_spec::{KNOWN_FEATURES, Level};

use crate::error::nearest;
use crate::{Library, Variant};

const SETS: &[&str] =
    &["all", "none", "id", "area", "level", "family", "protocol", "covers", "profile", "feature"];

/// Which variants are chosen.
#[derive(Debug, Clone)]
pub struct Selection(Node);

#[derive(Debug, Clone)]
enum Node {
    All,
    None,
    Id(Pattern),
    Area(String),
    Level(Level),
    Family(String),
    Protocol(String),
    Covers(String),
    Profile(String),
    Feature(String),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    glob: GlobMatcher,
}

/// A selection that cannot be read; displays with the text and a caret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the selection: {message}\n  {text}\n  {}^", " ".repeat(*column))]
pub struct SelectError {
    /// What was expected.
    pub message: String,
    /// The selection.
    pub text: String,
    /// Where it went wrong, in characters from 0.
    pub column: usize,
}

impl Selection {
    /// Every variant.
    #[must_use]
    pub fn all() -> Selection {
        Selection(Node::All)
    }

    /// Variants that an id pattern names.
    ///
    /// # Errors
    /// When the glob cannot be read.
    pub fn pattern(text: &str) -> Result<Selection, SelectError> {
        Parser { text, rest: text }.glob(text).map(|pattern| Selection(Node::Id(pattern)))
    }

    /// Variants that any of several id patterns names; every variant when there is none.
    ///
    /// # Errors
    /// When a glob cannot be read.
    pub fn patterns<'a>(
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Selection, SelectError> {
        let mut any = None;
        for text in texts {
            let Selection(one) = Selection::pattern(text)?;
            any = Some(match any {
                None => one,
                Some(others) => Node::Or(Box::new(others), Box::new(one)),
            });
        }
        Ok(Selection(any.unwrap_or(Node::All)))
    }

    /// Variants that an expression describes.
    ///
    /// # Errors
    /// When the expression cannot be read.
    pub fn expression(text: &str) -> Result<Selection, SelectError> {
        let mut parser = Parser { text, rest: text };
        let node = parser.or()?;
        parser.skip_space();
        if parser.rest.is_empty() {
            Ok(Selection(node))
        } else {
            Err(parser.expected("`and`, `or` or the end"))
        }
    }

    /// Variants that are in both selections.
    #[must_use]
    pub fn and(self, other: Selection) -> Selection {
        Selection(Node::And(Box::new(self.0), Box::new(other.0)))
    }

    /// Variants that are in either of two selections.
    #[must_use]
    pub fn or(self, other: Selection) -> Selection {
        Selection(Node::Or(Box::new(self.0), Box::new(other.0)))
    }

    /// Every id, area, behaviour and profile in it that no variant has, in a sentence each.
    #[must_use]
    pub fn misses(&self, library: &Library) -> Vec<String> {
        let mut misses = Vec::new();
        self.0.misses(library, &library.variants(), &mut misses);
        misses
    }

    /// Whether a variant is chosen.
    #[must_use]
    pub fn matches(&self, variant: &Variant) -> bool {
        self.0.matches(variant)
    }
}

impl Node {
    fn misses(&self, library: &Library, variants: &[Variant], misses: &mut Vec<String>) {
        let (said, like) = match self {
            Node::Id(pattern) => (format!("`{}`", pattern.text), library.case_like(&pattern.text)),
            Node::Area(name) => {
                let areas = library.cases().map(|case| case.area());
                (format!("area({name})"), nearest(name, areas))
            }
            Node::Covers(name) => {
                let ids = library.behaviours().keys().map(String::as_str);
                (format!("covers({name})"), nearest(name, ids))
            }
            Node::Profile(name) => (format!("profile({name})"), nearest(name, library.profiles())),
            Node::Not(node) => return node.misses(library, variants, misses),
            Node::And(a, b) | Node::Or(a, b) => {
                a.misses(library, variants, misses);
                return b.misses(library, variants, misses);
            }
            // These were looked up when they were read, or have few values.
            Node::All
            | Node::None
            | Node::Level(_)
            | Node::Family(_)
            | Node::Protocol(_)
            | Node::Feature(_) => return,
        };
        if !variants.iter().any(|variant| self.matches(variant)) {
            let meant = like.map(|like| format!("; did you mean `{like}`?"));
            misses.push(format!("{said} matches no case{}", meant.unwrap_or_default()));
        }
    }

    fn matches(&self, variant: &Variant) -> bool {
        let case = variant.case();
        match self {
            Node::All => true,
            Node::None => false,
            Node::Id(pattern) => {
                let id = case.id().as_str();
                pattern.text == id
                    || pattern.text == case.area()
                    || pattern.text == variant.id()
                    || pattern.glob.is_match(id)
            }
            Node::Area(area) => case.area() == area,
            Node::Level(level) => variant.level() == *level,
            Node::Family(family) => variant.family().to_string() == *family,
            Node::Protocol(protocol) => variant.protocol().to_string() == *protocol,
            Node::Covers(behaviour) => case.covers().any(|id| id == behaviour),
            Node::Profile(profile) => case.profiles().contains(profile.as_str()),
            Node::Feature(name) => variant.features().iter().any(|f| f.name() == name),
            Node::Not(node) => !node.matches(variant),
            Node::And(a, b) => a.matches(variant) && b.matches(variant),
            Node::Or(a, b) => a.matches(variant) || b.matches(variant),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn error(&self, message: String) -> SelectError {
        let before = self.text.len() - self.rest.len();
        let column = self.text.get(..before).map_or(0, |before| before.chars().count());
        SelectError { message, text: self.text.to_owned(), column }
    }

    fn expected(&self, what: &str) -> SelectError {
        self.error(format!("expected {what}"))
    }

    fn symbol(&mut self, symbol: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self, word: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(word) {
            Some(rest) if !rest.starts_with(|c: char| c.is_ascii_alphanumeric()) => {
                self.rest = rest;
                true
            }
            Some(_) | None => false,
        }
    }

    fn or(&mut self) -> Result<Node, SelectError> {
        let mut node = self.and()?;
        while self.symbol('|') || self.symbol('+') || self.word("or") {
            node = Node::Or(Box::new(node), Box::new(self.and()?));
        }
        Ok(node)
    }

    fn and(&mut self) -> Result<Node, SelectError> {
        let mut node = self.not()?;
        loop {
            if self.symbol('&') || self.word("and") {
                node = Node::And(Box::new(node), Box::new(self.not()?));
            } else if self.symbol('-') {
                node = Node::And(Box::new(node), Box::new(Node::Not(Box::new(self.not()?))));
            } else {
                return Ok(node);
            }
        }
    }

    fn not(&mut self) -> Result<Node, SelectError> {
        if self.symbol('!') || self.word("not") {
            return Ok(Node::Not(Box::new(self.not()?)));
        }
        if self.symbol('(') {
            let node = self.or()?;
            return if self.symbol(')') { Ok(node) } else { Err(self.expected("`)`")) };
        }
        self.set()
    }

    fn set(&mut self) -> Result<Node, SelectError> {
        self.skip_space();
        let start = self.rest;
        let end = start.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(start.len());
        let (name, rest) = start.split_at(end);
        if name.is_empty() {
            return Err(self.expected("a set, such as `level(must)`, `not` or `(`"));
        }
        if !SETS.contains(&name) {
            let near = nearest(name, SETS.iter().copied()).map_or_else(
                || format!("known: {}", SETS.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(self.error(format!("there is no set `{name}`; {near}")));
        }
        self.rest = rest;
        if !self.symbol('(') {
            return Err(self.expected(&format!("`(` after `{name}`")));
        }
        let Some((argument, rest)) = self.rest.split_once(')') else {
            return Err(self.expected("`)`"));
        };
        let value = argument.trim();
        let node = match name {
            "all" | "none" if !value.is_empty() => return Err(self.expected("`)`")),
            "all" => Node::All,
            "none" => Node::None,
            _ if value.is_empty() => return Err(self.expected(&format!("a value for `{name}`"))),
            "id" => Node::Id(self.glob(value)?),
            "area" => Node::Area(value.to_owned()),
            "level" => {
                Node::Level(match self.one_of(value, &["must", "should", "may", "survey"])? {
                    0 => Level::Must,
                    1 => Level::Should,
                    2 => Level::May,
                    _ => Level::Survey,
                })
            }
            "family" => {
                self.one_of(value, &["v4", "v6", "dual"])?;
                Node::Family(value.to_owned())
            }
            "protocol" => {
                self.one_of(value, &["tcp", "udp", "sctp"])?;
                Node::Protocol(value.to_owned())
            }
            "covers" => Node::Covers(value.to_owned()),
            "profile" => Node::Profile(value.to_owned()),
            _ => {
                let known: Vec<&str> = KNOWN_FEATURES.iter().map(|known| known.name).collect();
                self.one_of(value, &known)?;
                Node::Feature(value.to_owned())
            }
        };
        self.rest = rest;
        Ok(node)
    }

    fn one_of(&self, value: &str, known: &[&str]) -> Result<usize, SelectError> {
        known.iter().position(|known| *known == value).ok_or_else(|| {
            let near = nearest(value, known.iter().copied());
            self.error(match near {
                Some(near) => format!("`{value}` is not known; did you mean `{near}`?"),
                None => format!("`{value}` is not known; expected {}", known.join(", ")),
            })
        })
    }

    fn glob(&self, text: &str) -> Result<Pattern, SelectError> {
        // The brackets of a variant's id are not a character class.
        let escaped = text.replace('[', "[[]");
        GlobBuilder::new(&escaped)
            .build()
            .map(|glob| Pattern { text: text.to_owned(), glob: glob.compile_matcher() })
            .map_err(|error| self.error(format!("`{text}` is not a pattern: {}", error.kind())))
    }
}
