//! Columns that line up, as Docker prints them.
//!
//! Go's `text/tabwriter` with Docker's settings: a cell ends at a tab, is at least ten wide, and three
//! blanks follow the widest; what follows a line's last tab belongs to no column.
//! A column is a run of *adjacent* lines that have it, so a line without tabs starts the widths anew.
//!
//! ```text
//!   REPOSITORY⇥TAG⇥SIZE        REPOSITORY   TAG       SIZE
//!   alpine⇥latest⇥8.1MB   ──►  alpine       latest    8.1MB
//! ```

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Lines up the cells of a text.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> =
        lines.iter().map(|cells| cells[..cells.len() - 1].iter().map(|cell| width(cell)).collect()).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut line = 0;
        while line < widths.len() {
            let run = widths[line..].iter().take_while(|cells| cells.len() > column).count();
            let block = &mut widths[line..line + run];
            let widest = block.iter().map(|cells| cells[column]).max().unwrap_or(0);
            for cells in block {
                cells[column] = (widest + PADDING).max(MIN_WIDTH);
            }
            line += run.max(1);
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(&column) = widths.get(index) {
                out.extend(std::iter::repeat_n(' ', column - width(cell)));
            }
        }
        out.push('\n');
    }
    out
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_as_dockers() {
        let text =
            "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\nubuntu\t24.04\t35a88802559d\t6 weeks ago\t78MB\n";
        assert_eq!(
            align(text),
            "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE\n\
             ubuntu       24.04     35a88802559d   6 weeks ago   78MB\n"
        );
    }

    #[test]
    fn an_empty_last_cell_keeps_the_blanks_before_it() {
        // Recorded from `docker context ls`.
        let text = "NAME\tDESCRIPTION\tDOCKER ENDPOINT\tERROR\n\
                    default *\tCurrent DOCKER_HOST based configuration\tunix:///var/run/docker.sock\t\n\
                    foo\t\ttcp://h:1\t\n";
        assert_eq!(
            align(text),
            "NAME        DESCRIPTION                               DOCKER ENDPOINT               ERROR\n\
             default *   Current DOCKER_HOST based configuration   unix:///var/run/docker.sock   \n\
             foo                                                   tcp://h:1                     \n"
        );
    }

    #[test]
    fn a_line_without_the_column_separates_widths() {
        assert_eq!(align("a-very-long-cell\tx\nplain\nb\ty\n"), "a-very-long-cell   x\nplain\nb         y\n");
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(align("옹기\tx\nab\ty"), "옹기        x\nab        y\n");
        assert_eq!(align(""), "");
    }
}
