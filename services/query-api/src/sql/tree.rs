//! The tree that `EXPLAIN AST` describes: one line a node, a space a level, the number of children at the end.

use super::Refused;

/// One node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    /// `Function`, `Identifier`, `SelectQuery`, ...
    pub(super) kind: &'a str,
    /// What follows the kind: a name, a literal; without the alias.
    pub(super) text: &'a str,
    /// Index of the parent.
    pub(super) parent: Option<usize>,
    /// How many siblings stand before it.
    pub(super) position: usize,
    /// How many children the line announces.
    pub(super) children: usize,
    depth: usize,
}

/// Reads the lines, and refuses what is no tree: names may hold line breaks, and a forged line must not go unseen.
pub(super) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Vec<Node<'a>>, Refused> {
    let mut nodes: Vec<Node<'a>> = Vec::new();
    // Indices of the nodes from the root to the last one, and how many children each of them has had.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for line in lines {
        let mut node = read(line);
        while path.last().is_some_and(|(index, _)| nodes[*index].depth >= node.depth) {
            close(&nodes, path.pop())?;
        }
        match path.last_mut() {
            Some((parent, seen)) if nodes[*parent].depth + 1 == node.depth => {
                node.parent = Some(*parent);
                node.position = *seen;
                *seen += 1;
            }
            None if nodes.is_empty() && node.depth == 0 => {}
            _ => return Err(Refused::Unreadable("its parts do not form a tree")),
        }
        path.push((nodes.len(), 0));
        nodes.push(node);
    }
    while !path.is_empty() {
        close(&nodes, path.pop())?;
    }
    if nodes.is_empty() { Err(Refused::Unreadable("the engine describes nothing")) } else { Ok(nodes) }
}

fn close(nodes: &[Node<'_>], ended: Option<(usize, usize)>) -> Result<(), Refused> {
    match ended {
        Some((index, seen)) if nodes[index].children != seen => {
            Err(Refused::Unreadable("a name in it seems to hold a line break"))
        }
        _ => Ok(()),
    }
}

fn read(line: &str) -> Node<'_> {
    let content = line.trim_start_matches(' ');
    let depth = line.len() - content.len();
    let (content, children) = match content.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (children ")) {
        Some((before, count)) => match count.parse() {
            Ok(count) => (before, count),
            Err(_) => (content, 0),
        },
        None => (content, 0),
    };
    let (kind, text) = content.split_once(' ').unwrap_or((content, ""));
    let text = text.split_once(" (alias ").map_or(text, |(text, _)| text).trim();
    Node { kind, text, parent: None, position: 0, children, depth }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "SelectQuery (children 2)\n ExpressionList (children 2)\n  Function length (alias a) (children 1)\n   ExpressionList\n  Literal 'x'\n Identifier b";

    #[test]
    fn a_description_gives_its_nodes_with_their_places() {
        let nodes = parse(TREE.split('\n')).unwrap();
        let seen: Vec<_> = nodes.iter().map(|node| (node.kind, node.text, node.parent, node.position)).collect();
        assert_eq!(
            seen,
            [
                ("SelectQuery", "", None, 0),
                ("ExpressionList", "", Some(0), 0),
                ("Function", "length", Some(1), 0),
                ("ExpressionList", "", Some(2), 0),
                ("Literal", "'x'", Some(1), 1),
                ("Identifier", "b", Some(0), 1),
            ]
        );
    }

    #[test]
    fn lines_that_are_no_tree_are_refused() {
        for lines in [
            "",
            " Function a",
            "Function a\n  Literal 1",
            "Function a\nFunction b",
            "Function a (children 2)\n Literal 1",
            "Function a\n Literal 1",
            "Function a (children 1)\n Literal 1\n Literal 2",
        ] {
            assert!(parse(lines.split('\n').filter(|line| !line.is_empty())).is_err(), "{lines:?}");
        }
    }
}
