package cluster

import (
	"reflect"
	"strings"
	"testing"
)

func TestPrintable_LetsNoTerminalSequencePass(t *testing.T) {
	got := PrintableLines(strings.NewReader("a\tb\n\n \n\x1b[31mred\x1b[0m\r\nü\x00\u202e\n"))
	if want := []string{"a b", "[31mred[0m", "ü"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
