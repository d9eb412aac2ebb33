//! The tree of a statement against the lists.

use super::{
    Refused,
    functions::{self, Standing},
    statement::is_exactly,
    tree::{self, Node},
};

/// Kinds of nodes that a statement that reads is made of. `ColumnsApplyTransformer` is not among them: the tree does not show the
/// function that `APPLY` names.
const KINDS: [&str; 37] = [
    "ArrayJoin",
    "Asterisk",
    "ColumnsExceptTransformer",
    "ColumnsListMatcher",
    "ColumnsRegexpMatcher",
    "ColumnsReplaceTransformer",
    "ColumnsReplaceTransformer::Replacement",
    "ColumnsTransformerList",
    "DescribeQuery",
    "ExistsTableQuery",
    "Explain",
    "ExpressionList",
    "Function",
    "Identifier",
    "InterpolateElement",
    "Literal",
    "OrderByElement",
    "QualifiedAsterisk",
    "QualifiedColumnsListMatcher",
    "QualifiedColumnsRegexpMatcher",
    "QueryParameter",
    "SampleRatio",
    "SelectIntersectExceptQuery",
    "SelectQuery",
    "SelectWithUnionQuery",
    "ShowCreateTableQuery",
    "ShowTables",
    "Subquery",
    "TableAlias",
    "TableExpression",
    "TableIdentifier",
    "TableJoin",
    "TablesInSelectQuery",
    "TablesInSelectQueryElement",
    "WindowDefinition",
    "WindowListElement",
    "WithElement",
];

/// Checks what `EXPLAIN AST` says about `sql`, line by line.
pub fn check<'a>(sql: &str, lines: impl IntoIterator<Item = &'a str>) -> Result<(), Refused> {
    let nodes = tree::parse(lines)?;
    check_root(sql, &nodes)?;
    nodes.iter().try_for_each(|node| check_node(&nodes, node))
}

fn check_root(sql: &str, nodes: &[Node<'_>]) -> Result<(), Refused> {
    let root = &nodes[0];
    if nodes.iter().any(|node| node.parent == Some(0) && is_tail(root, node)) {
        return Err(tail());
    }
    match root.kind {
        "SelectWithUnionQuery"
        | "SelectIntersectExceptQuery"
        | "DescribeQuery"
        | "ShowCreateTableQuery"
        | "ExistsTableQuery" => Ok(()),
        // Its WHERE is not part of the tree.
        "ShowTables" if is_exactly(sql, &["SHOW", "TABLES"]) => Ok(()),
        "ShowTables" => Err(Refused::Statement("SHOW with anything but TABLES".into())),
        "Explain" if nodes.iter().any(|node| node.parent == Some(0) && node.kind == "SelectWithUnionQuery") => Ok(()),
        "Explain" => Err(Refused::Statement("EXPLAIN of anything but SELECT".into())),
        kind => Err(Refused::Statement(kind.trim_end_matches("Query").to_ascii_uppercase())),
    }
}

/// Whether a part of the root is `FORMAT`, `INTO OUTFILE` or `SETTINGS` behind the statement.
fn is_tail(root: &Node<'_>, node: &Node<'_>) -> bool {
    match root.kind {
        "DescribeQuery" => node.kind != "TableExpression",
        "Explain" => ["Identifier", "Literal"].contains(&node.kind),
        // The database and the table.
        "ShowCreateTableQuery" | "ExistsTableQuery" => node.position >= root.text.split_whitespace().count(),
        _ => false,
    }
}

fn tail() -> Refused {
    Refused::Clause {
        what: "FORMAT, INTO OUTFILE or SETTINGS".into(),
        instead: ": the request's \"format\" chooses the form of the answer",
    }
}

fn check_node(nodes: &[Node<'_>], node: &Node<'_>) -> Result<(), Refused> {
    let parent = node.parent.map(|parent| &nodes[parent]);
    match node.kind {
        "Function" if parent.is_some_and(|parent| parent.kind == "TableExpression") => check_table_function(node.text),
        "Function" => check_function(node.text),
        "Identifier" => check_identifier(nodes, node),
        "TableIdentifier" => check_table(node.text),
        "ShowCreateTableQuery" | "ExistsTableQuery" if node.children > 1 => check_table(&node.text.replace(' ', ".")),
        "SelectWithUnionQuery" if node.children > 1 => Err(tail()),
        "Set" if parent.is_some_and(|parent| parent.kind == "Explain") => Ok(()),
        "Set" => Err(Refused::Clause { what: "SETTINGS".into(), instead: "" }),
        "ColumnsApplyTransformer" => {
            Err(Refused::Clause { what: "APPLY".into(), instead: ": write the function around each column" })
        }
        kind if KINDS.contains(&kind) => Ok(()),
        kind => Err(Refused::Clause { what: kind.chars().take(60).collect(), instead: "" }),
    }
}

fn check_function(name: &str) -> Result<(), Refused> {
    let reason = match functions::standing(name) {
        Standing::Allowed => return Ok(()),
        Standing::Refused(reason) => format!("it {reason}"),
        Standing::Unknown => "it is on no list of functions that read only the tables".into(),
    };
    Err(Refused::Function { name: name.chars().take(100).collect(), reason })
}

fn check_table_function(name: &str) -> Result<(), Refused> {
    if functions::is_table_allowed(name) {
        return Ok(());
    }
    let reason = "tables come from the database weir, and from numbers, generate_series and view".into();
    Err(Refused::Function { name: name.chars().take(100).collect(), reason })
}

/// Weir's own tables; the engine lets everybody read some that tell about the server.
fn check_table(name: &str) -> Result<(), Refused> {
    match name.split_once('.') {
        Some((database, _)) if database != "weir" => Err(Refused::Table(name.chars().take(100).collect())),
        _ => Ok(()),
    }
}

/// A bare name may stand for a function: `arrayMap(file, names)` calls `file`.
fn check_identifier(nodes: &[Node<'_>], node: &Node<'_>) -> Result<(), Refused> {
    if let Standing::Refused(reason) = functions::standing(node.text) {
        let reason =
            format!("it {reason}, and a bare name can call it; a column of this name needs its table's before it");
        return Err(Refused::Function { name: node.text.into(), reason });
    }
    // `1 IN system.settings` reads a table, too.
    let database = node.text.split_once('.').map_or("", |(first, _)| first).to_ascii_lowercase();
    if ["system", "information_schema"].contains(&database.as_str()) {
        return check_table(node.text);
    }
    if is_called(nodes, node) { check_function(node.text) } else { Ok(()) }
}

/// Whether the name stands where functions such as `arrayMap` take the function to call: first of several arguments.
fn is_called(nodes: &[Node<'_>], node: &Node<'_>) -> bool {
    let Some(list) = node.parent.map(|parent| &nodes[parent]) else { return false };
    let Some(function) = list.parent.map(|parent| &nodes[parent]) else { return false };
    let name = function.text.to_ascii_lowercase();
    let higher_order = (name.starts_with("array") && !NOT_HIGHER_ORDER.contains(&name.as_str()))
        || ["mapapply", "mapfilter", "mapexists", "mapall", "mapsort", "mapreversesort", "mappartialsort"]
            .contains(&name.as_str());
    function.kind == "Function"
        && list.kind == "ExpressionList"
        && list.children > 1
        && node.position == 0
        && higher_order
}

/// Functions on arrays that take several arguments, none of them a function.
const NOT_HIGHER_ORDER: [&str; 40] = [
    "array",
    "array_agg",
    "array_concat_agg",
    "array_remove",
    "array_to_string",
    "arrayauc",
    "arrayaucpr",
    "arrayconcat",
    "arraydotproduct",
    "arrayelement",
    "arrayelementornull",
    "arrayenumeratedense",
    "arrayenumeratedenseranked",
    "arrayenumerateuniq",
    "arrayenumerateuniqranked",
    "arrayexcept",
    "arrayintersect",
    "arrayjaccardindex",
    "arrayjoin",
    "arraylevenshteindistance",
    "arraypushback",
    "arraypushfront",
    "arrayrandomsample",
    "arrayremove",
    "arrayresize",
    "arrayrotateleft",
    "arrayrotateright",
    "arrayshiftleft",
    "arrayshiftright",
    "arrayshingles",
    "arraysimilarity",
    "arrayslice",
    "arraystringconcat",
    "arraysymmetricdifference",
    "arraytopk",
    "arrayunion",
    "arrayuniq",
    "arraywithconstant",
    "arrayzip",
    "arrayzipunaligned",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn select(inside: &str) -> String {
        format!(
            "SelectWithUnionQuery (children 1)\n ExpressionList (children 1)\n  SelectQuery (children 1)\n   ExpressionList (children 1)\n{inside}"
        )
    }

    fn checked(tree: &str) -> Result<(), Refused> {
        check("SELECT 1", tree.split('\n'))
    }

    #[test]
    fn a_function_is_refused_wherever_its_name_stands() {
        assert_eq!(
            checked(&select("    Function length (children 1)\n     ExpressionList (children 1)\n      Literal 'a'")),
            Ok(())
        );
        for inside in [
            "    Function file (children 1)\n     ExpressionList (children 1)\n      Literal 'a'",
            "    Function FILE",
            "    Identifier file",
            "    Function arrayMap (children 1)\n     ExpressionList (children 2)\n      Identifier a_udf\n      Literal 'a'",
            "    Function a_udf",
            "    TableExpression (children 1)\n     Function url",
            "    TableExpression (children 1)\n     Function format",
        ] {
            assert!(matches!(checked(&select(inside)), Err(Refused::Function { .. })), "{inside}");
        }
        let array_of_column = "    Function arrayConcat (children 1)\n     ExpressionList (children 2)\n      Identifier answers\n      Identifier b";
        assert_eq!(checked(&select(array_of_column)), Ok(()));
    }

    #[test]
    fn what_is_not_shown_or_not_known_is_refused() {
        let apply =
            "    Asterisk (children 1)\n     ColumnsTransformerList (children 1)\n      ColumnsApplyTransformer";
        for tree in [
            select(apply),
            select("    SomethingNew"),
            "SelectWithUnionQuery (children 2)\n ExpressionList\n Identifier CSV".into(),
            "Set".into(),
            "InsertQuery".into(),
            "SYSTEM query".into(),
            "ShowTables (children 1)\n Function file".into(),
            "Explain EXPLAIN".into(),
            "DescribeQuery (children 2)\n TableExpression (children 1)\n  TableIdentifier flows\n Identifier CSV"
                .into(),
            "ShowCreateTableQuery  flows (children 2)\n Identifier flows\n Identifier CSV".into(),
            select("    TableIdentifier system.settings"),
            select("    Identifier system.settings"),
            "ShowCreateTableQuery system users (children 2)\n Identifier system\n Identifier users".into(),
        ] {
            assert!(checked(&tree).is_err(), "{tree}");
        }
    }
}
