//! Tables as Go's tabwriter lays them out: cells end with a tab, columns are padded to their widest cell plus three
//! spaces, ten characters at least, and a column ends where a line has no cell for it.

/// Lays out text whose cells are separated by tabs.
pub fn layout(text: &str) -> String {
    layout_from(text, 10)
}

/// The same, with columns that are `least` characters wide at least.
pub fn layout_from(text: &str, least: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len().saturating_sub(1)]).collect();
    // The last cell of a line belongs to no column. A block is a run of lines that have a cell in a column.
    for first in 0..lines.len() {
        for column in 0..widths[first].len() {
            if first > 0 && widths[first - 1].len() > column {
                continue;
            }
            let block = first..first + widths[first..].iter().take_while(|w| w.len() > column).count();
            let widest = lines[block.clone()].iter().map(|line| width(line[column])).max().unwrap_or_default();
            let taken = (widest + 3).max(least);
            for line in block {
                widths[line][column] = taken;
            }
        }
    }
    let laid = lines.iter().zip(&widths).map(|(cells, widths)| {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            line.push_str(cell);
            if let Some(wanted) = widths.get(index) {
                line.extend(std::iter::repeat_n(' ', wanted.saturating_sub(width(cell))));
            }
        }
        line
    });
    laid.collect::<Vec<_>>().join("\n")
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_spaces_apart() {
        let text = "NETWORK ID\tNAME\tDRIVER\n123456789012\tbridge\tbridge\n1\twebapp1\tx\n";
        let expected = "NETWORK ID     NAME      DRIVER\n123456789012   bridge    bridge\n1              webapp1   x\n";
        assert_eq!(layout(text), expected);
    }

    #[test]
    fn columns_are_ten_wide_at_least() {
        assert_eq!(layout("a\t\tb\nc\t\td\n"), "a                   b\nc                   d\n");
        assert_eq!(layout("A\tB\t\nx\ty\t\n"), "A         B         \nx         y         \n");
    }

    #[test]
    fn columns_are_as_wide_as_is_asked() {
        assert_eq!(layout_from("UID\tPID\n0\t1\n", 20), "UID                 PID\n0                   1\n");
    }

    #[test]
    fn a_line_without_cells_starts_new_columns() {
        assert_eq!(layout("a longer cell\tb\nplain\na\tb"), "a longer cell   b\nplain\na         b");
    }
}
