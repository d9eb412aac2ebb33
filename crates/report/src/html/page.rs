//! What every page has around its content.

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub(super) fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing may be loaded or run, should anything of a stranger ever get through.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body { main {
                (body)
                footer { "Made by Weir " (env!("CARGO_PKG_VERSION")) ". Times are UTC; M, G are powers of 1000." }
            } }
        }
    };
    page.into_string()
}
