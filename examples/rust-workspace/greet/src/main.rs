//! Greets, and counts the words that it was given.

fn main() {
    let text: Vec<String> = std::env::args().skip(1).collect();
    let count = words::words(&text.join(" ")).len();
    println!("hello from rust, {} words", itoa::Buffer::new().format(count));
}
