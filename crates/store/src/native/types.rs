//! Types of columns, as the server writes them.

/// How the values of a column are laid out, and the type that is announced for them.
#[derive(Debug)]
pub(super) struct Type {
    announced: String,
    prefix: &'static [u8],
    layout: Layout,
}

/// Says that JSON comes as its text (a number of 8 bytes). The server could turn a column of text into JSON as well, but would then refuse
/// a path that is there twice, whatever it is told.
const JSON_AS_TEXT: [u8; 8] = 1_u64.to_le_bytes();

#[derive(Debug)]
pub(super) enum Layout {
    /// So many bytes a value.
    Fixed(usize),
    Text,
    Nullable(Box<Layout>),
    Array(Box<Layout>),
    Tuple(Vec<Layout>),
}

impl Type {
    /// None = a type that no table of Weir has.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.split_once('(').map_or(text, |(name, _)| name) == "JSON" {
            return Some(Self { announced: text.to_owned(), prefix: &JSON_AS_TEXT, layout: Layout::Text });
        }
        let (announced, layout) = value(text)?;
        Some(Self { announced, prefix: &[], layout })
    }

    pub(super) fn announced(&self) -> &str {
        &self.announced
    }

    /// What comes before the values.
    pub(super) fn prefix(&self) -> &'static [u8] {
        self.prefix
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// What is announced for values of a type, and their layout.
fn value(text: &str) -> Option<(String, Layout)> {
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => (name, split(rest.strip_suffix(')')?)),
        None => (text, Vec::new()),
    };
    let nested = |layout: fn(Box<Layout>) -> Layout| {
        let (announced, inner) = value(arguments.first()?)?;
        Some((format!("{name}({announced})"), layout(Box::new(inner))))
    };
    match name {
        "LowCardinality" => value(arguments.first()?),
        "Nullable" => nested(Layout::Nullable),
        "Array" => nested(Layout::Array),
        "Map" | "Tuple" => {
            let parts = arguments.iter().map(|part| element(part)).collect::<Option<Vec<_>>>()?;
            let (announced, layouts): (Vec<_>, _) = parts.into_iter().unzip();
            let tuple = Layout::Tuple(layouts);
            // A map is a list of its pairs.
            let layout = if name == "Map" { Layout::Array(Box::new(tuple)) } else { tuple };
            Some((format!("{name}({})", announced.join(", ")), layout))
        }
        "String" => Some((text.to_owned(), Layout::Text)),
        _ => Some((text.to_owned(), Layout::Fixed(width(name)?))),
    }
}

fn width(name: &str) -> Option<usize> {
    Some(match name {
        "Bool" | "UInt8" | "Int8" | "Enum8" => 1,
        "UInt16" | "Int16" | "Enum16" | "Date" => 2,
        "UInt32" | "Int32" | "Float32" | "DateTime" | "IPv4" => 4,
        "UInt64" | "Int64" | "Float64" | "DateTime64" => 8,
        "UUID" | "IPv6" => 16,
        _ => return None,
    })
}

/// An element of a tuple, perhaps with its name: what is announced for it, and its layout.
fn element(text: &str) -> Option<(String, Layout)> {
    let named = text.find([' ', '(']).filter(|&at| text.as_bytes()[at] == b' ');
    let (name, of) = named.map_or(("", text), |at| (&text[..=at], &text[at + 1..]));
    let (announced, layout) = value(of)?;
    Some((format!("{name}{announced}"), layout))
}

/// The arguments of a type; commas in parentheses and in quotes do not part them.
fn split(arguments: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    let (mut quoted, mut escaped) = (false, false);
    for (at, character) in arguments.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '\'' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(arguments[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(arguments[start..].trim());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_has_no_dictionaries() {
        for (text, announced) in [
            ("LowCardinality(String)", "String"),
            ("Enum8('unknown' = 0, 'a,)\\'(' = 1)", "Enum8('unknown' = 0, 'a,)\\'(' = 1)"),
            ("DateTime64(6, 'UTC')", "DateTime64(6, 'UTC')"),
            ("Nullable(DateTime64(6, 'UTC'))", "Nullable(DateTime64(6, 'UTC'))"),
            ("Map(LowCardinality(String), String)", "Map(String, String)"),
            ("Array(LowCardinality(String))", "Array(String)"),
            ("Array(Tuple(name String, ip IPv6))", "Array(Tuple(name String, ip IPv6))"),
            ("JSON", "JSON"),
            ("JSON(max_dynamic_paths=8)", "JSON(max_dynamic_paths=8)"),
        ] {
            assert_eq!(Type::parse(text).as_ref().map(Type::announced), Some(announced));
        }
        for unknown in
            ["", "Point", "Array", "Array(Point)", "Array(UInt8", "Tuple(a Point)", "Nullable()", "Array(JSON)"]
        {
            assert!(Type::parse(unknown).is_none(), "{unknown}");
        }
    }
}
