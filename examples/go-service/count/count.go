// Package count counts words.
package count

import "strings"

// Words gives the number of different words.
func Words(text string) int {
	seen := map[string]bool{}
	for _, word := range strings.Fields(text) {
		seen[word] = true
	}
	return len(seen)
}
