// hello counts its words.
package main

import (
	"fmt"
	"os"
	"strings"

	"example.org/hello/count"
)

func main() {
	fmt.Printf("hello from go, %d words\n", count.Words(strings.Join(os.Args[1:], " ")))
}
