package count

import "testing"

func TestWords(t *testing.T) {
	if got := Words("a b a"); got != 2 {
		t.Fatalf("got %d", got)
	}
}
