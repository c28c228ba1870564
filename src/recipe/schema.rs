//! What a recipe may say, as data.
//!
//! Every kind describes its declaration by one constant [`Schema`]. Checking, defaults, the facts of the
//! manifest, the references between targets, `effai schema` and the pages in `docs/kinds/` are all read
//! from it, so a field cannot be accepted and then forgotten by the key.
//!
//! A checked declaration becomes JSON of this shape, which a kind reads with serde (kebab-case names):
//!
//! | in the recipe | in JSON |
//! |---|---|
//! | a child with one argument and nothing else, `epochs 20` | the value |
//! | a child with many arguments and nothing else, `metrics "a" "b"` | an array |
//! | a child with no arguments, properties or children, `shuffle` | `true` |
//! | any other child, `method "lora" rank=8 { ... }` | an object: the arguments under their names, each property and child under its own |
//! | a child that may be repeated | an array of the above |
//! | children of an open node, `image "{file}"` | under `"columns"`, an object from name to value, or to an array of several |

/// One node of a recipe: its arguments, properties and children.
#[derive(Debug)]
pub struct Schema {
    /// The node's name.
    pub name: &'static str,
    /// One or two sentences for the documentation.
    pub doc: &'static str,
    /// Its arguments.
    pub args: Args,
    /// Its properties.
    pub props: &'static [Prop],
    /// Its children.
    pub children: &'static [Schema],
    /// Children of any name, each with one argument of this type; of [`Type::Value`], with several.
    pub open: Option<Type>,
    /// How often it may stand.
    pub count: Count,
    /// The value of a missing child with one argument and nothing else.
    pub default: Option<Default>,
    /// Its fields are told without its name: `adapter.rank`, not `adapter.method.rank`.
    pub flat: bool,
    /// It decides when or where the action runs, and never its bytes: it is no fact.
    pub beside: bool,
}

/// The arguments of a node.
#[derive(Clone, Copy, Debug)]
pub enum Args {
    /// None.
    None,
    /// Just one.
    One(&'static str, Type),
    /// One that may be left out.
    Optional(&'static str, Type),
    /// One or more of a type.
    Many(&'static str, Type),
}

/// A property: `name=value`.
#[derive(Clone, Copy, Debug)]
pub struct Prop {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// Its value when it is left out; without one, the property is optional unless `required`.
    pub default: Option<Default>,
    /// Must be given.
    pub required: bool,
    /// One sentence for the documentation.
    pub doc: &'static str,
}

/// How often a child may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// At most once.
    Optional,
    /// Just once.
    Required,
    /// Any number of times, in order.
    Many,
    /// At least once, in order.
    Some,
}

/// The type of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// Any text.
    Text,
    /// A whole number from `.0` to `.1`.
    Int(i64, i64),
    /// A number from `.0` to `.1`.
    Float(f64, f64),
    /// A number above `.0`, up to `.1`.
    FloatAbove(f64, f64),
    /// `#true` or `#false`.
    Bool,
    /// Text, a number, or `#true` or `#false`, as it is written; of an open node, one or several.
    Value,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Another target. Its artifact's digest is the fact.
    Label,
    /// Another target, of this kind. Its artifact's digest is the fact.
    Of(&'static str),
    /// Another target whose label is written into the artifact, and so is a fact as well.
    NamedLabel,
    /// A file of the project, by its path from the project's root. Its digest is the fact.
    File,
    /// Files of the project, by a glob from the project's root. Paths and digests are the fact.
    Glob,
    /// So many bytes, as people write them; a whole number in JSON.
    Size,
    /// A span of time, as people write it; seconds in JSON.
    Span,
    /// 64 hexadecimal digits.
    Sha256,
    /// A variable of effai's environment that is handed through. A digest of its value is the fact.
    Variable,
    /// A program that may be absent from the machine. Whether it is there is the fact.
    Tool,
    /// A directory of the project, by its path from the root, in which these files lie, each with how to get it. Their
    /// digests are facts.
    Holding(&'static [(&'static str, &'static str)]),
    /// A version of Python, or the beginning of one; the field of that name is the directory whose `uv.lock` says what
    /// is allowed. The interpreter of this machine that is meant is a fact.
    Python(&'static str),
    /// A target as the lock of a git revision has it, `LABEL@REV`. The artifact that is named there is the fact.
    AtRevision,
}

/// A default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// Text.
    Text(&'static str),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
}

impl Schema {
    /// A node without arguments or fields, at most once.
    pub const fn new(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            args: Args::None,
            props: &[],
            children: &[],
            open: None,
            count: Count::Optional,
            default: None,
            flat: false,
            beside: false,
        }
    }

    /// Takes one argument.
    #[must_use]
    pub const fn arg(mut self, name: &'static str, ty: Type) -> Self {
        self.args = Args::One(name, ty);
        self
    }

    /// Takes one argument or none.
    #[must_use]
    pub const fn optional_arg(mut self, name: &'static str, ty: Type) -> Self {
        self.args = Args::Optional(name, ty);
        self
    }

    /// Takes one argument or more.
    #[must_use]
    pub const fn many_args(mut self, name: &'static str, ty: Type) -> Self {
        self.args = Args::Many(name, ty);
        self
    }

    /// Has these properties.
    #[must_use]
    pub const fn props(mut self, props: &'static [Prop]) -> Self {
        self.props = props;
        self
    }

    /// Has these children.
    #[must_use]
    pub const fn children(mut self, children: &'static [Schema]) -> Self {
        self.children = children;
        self
    }

    /// Has children of any name, each with one argument of this type.
    #[must_use]
    pub const fn open(mut self, ty: Type) -> Self {
        self.open = Some(ty);
        self
    }

    /// Must stand just once.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.count = Count::Required;
        self
    }

    /// May stand any number of times.
    #[must_use]
    pub const fn many(mut self) -> Self {
        self.count = Count::Many;
        self
    }

    /// Must stand at least once.
    #[must_use]
    pub const fn some(mut self) -> Self {
        self.count = Count::Some;
        self
    }

    /// The value where it is left out.
    #[must_use]
    pub const fn default(mut self, value: Default) -> Self {
        self.default = Some(value);
        self
    }

    /// Its fields are told without its name.
    #[must_use]
    pub const fn flat(mut self) -> Self {
        self.flat = true;
        self
    }

    /// It cannot change a byte: its values are no facts, and name no target or file.
    #[must_use]
    pub const fn no_fact(mut self) -> Self {
        self.beside = true;
        self
    }

    /// Whether its JSON is a bare value, array or `true` and not an object.
    pub fn is_leaf(&self) -> bool {
        self.props.is_empty() && self.children.is_empty() && self.open.is_none()
    }
}

impl Prop {
    /// An optional property.
    pub const fn new(name: &'static str, ty: Type, doc: &'static str) -> Self {
        Self { name, ty, default: None, required: false, doc }
    }

    /// A property with a default.
    #[must_use]
    pub const fn default(mut self, value: Default) -> Self {
        self.default = Some(value);
        self
    }

    /// A property that must be given.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

impl Type {
    /// Whether it names another target.
    pub fn is_label(self) -> bool {
        matches!(self, Type::Label | Type::NamedLabel | Type::Of(_))
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Type::Text => f.write_str("text"),
            Type::Int(low, high) if *high == i64::MAX => write!(f, "a whole number of {low} or more"),
            Type::Int(low, high) => write!(f, "a whole number from {low} to {high}"),
            Type::Float(f64::NEG_INFINITY, f64::INFINITY) => write!(f, "a number"),
            Type::Float(low, high) if *high == f64::INFINITY => write!(f, "a number of {low} or more"),
            Type::Float(low, high) => write!(f, "a number from {low} to {high}"),
            Type::FloatAbove(low, high) if *high == f64::INFINITY => write!(f, "a number above {low}"),
            Type::FloatAbove(low, high) => write!(f, "a number above {low}, up to {high}"),
            Type::Bool => f.write_str("#true or #false"),
            Type::Value => f.write_str("text, a number, #true or #false"),
            Type::Choice(words) => {
                for (i, word) in words.iter().enumerate() {
                    let comma = match i {
                        0 => "",
                        _ if i + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{comma}\"{word}\"")?;
                }
                Ok(())
            }
            Type::Label | Type::NamedLabel => f.write_str("a target's label"),
            Type::Of(kind) => write!(f, "the label of a target of kind `{kind}`"),
            Type::File => f.write_str("a file's path"),
            Type::Glob => f.write_str("a path or a glob"),
            Type::Size => f.write_str("a size such as \"20 GiB\""),
            Type::Span => f.write_str("a span of time such as \"10 min\""),
            Type::Sha256 => f.write_str("64 hexadecimal digits"),
            Type::Variable => f.write_str("a variable's name"),
            Type::Tool => f.write_str("a program's name"),
            Type::Holding(_) => f.write_str("a directory's path"),
            Type::Python(_) => f.write_str("a version of Python"),
            Type::AtRevision => f.write_str("a target at a revision"),
        }
    }
}

/// A file's path by that of the directory it lies in.
pub fn file_in(dir: &str, name: &str) -> String {
    match dir.trim_start_matches("./").trim_end_matches('/') {
        "" | "." => name.to_owned(),
        dir => format!("{dir}/{name}"),
    }
}

/// The path of the lock that says which versions of Python are allowed, by the field that names its directory.
pub fn lock_of(fields: &serde_json::Value, project: &str) -> String {
    file_in(fields[project].as_str().unwrap_or("."), "uv.lock")
}
