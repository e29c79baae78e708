package http2

import (
	"strings"
	"testing"
	"time"
)

func TestHTTP2_heads_that_wait_are_bounded_and_leave_room_for_other_backends(t *testing.T) {
	r := &relay{}
	up, other := &upstream{r: r}, &upstream{r: r}
	n := 0
	for ; up.accept(&stream{size: 16 << 10}) == nil; n++ {
	}
	if n < 1000 || up.held > maxHeads*2/3+(16<<10) {
		t.Errorf("%d heads of %d bytes wait", n, up.held)
	}
	if err := other.accept(&stream{size: 16 << 10}); err != nil {
		t.Error(err)
	}
	if err := up.accept(&stream{}); err == nil || strings.Contains(err.Error(), "does not read") {
		t.Errorf("got %v", err)
	}
	up.hold(-up.held)
	up.frameConn = &frameConn{writing: time.Now().Add(-stuckAfter / 2)}
	up.held = maxQueued
	if err := up.accept(&stream{size: 1}); err != nil {
		t.Error(err)
	}
	up.writing = time.Now().Add(-2 * stuckAfter)
	if err := up.accept(&stream{size: 1}); err == nil || !strings.Contains(err.Error(), "does not read what it is sent") {
		t.Errorf("got %v", err)
	}
}
