package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"
)

// frame returns a SPDY frame of n bytes of data.
func frame(n int) []byte {
	b := make([]byte, frameHead+n)
	binary.BigEndian.PutUint32(b, 1)
	binary.BigEndian.PutUint32(b[4:], uint32(n)) //nolint:gosec // of a test
	return b
}

// recorded keeps what is written, and waits for ever when it is read, unless there is a deadline.
type recorded struct {
	net.Conn
	writes   [][]byte
	deadline time.Time
	gives    bool
}

func (r *recorded) Write(b []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(b))
	return len(b), nil
}

func (r *recorded) SetReadDeadline(t time.Time) error { r.deadline = t; return nil }

func (r *recorded) Read(b []byte) (int, error) {
	if r.gives {
		return len(b), nil
	}
	return 0, os.ErrDeadlineExceeded
}

func TestFramesAreSentInOneMessageEach(t *testing.T) {
	r := &recorded{}
	w := &watchedConn{Conn: r}
	all := append(append(frame(5), frame(0)...), frame(70000)...)
	for _, n := range []int{4, 4, 5, 8, 7, 1, 100} {
		if wrote, err := w.Write(all[:n]); wrote != n || err != nil {
			t.Fatal(wrote, err)
		}
		all = all[n:]
	}
	_, _ = w.Write(all)
	var sizes []int
	for _, b := range r.writes {
		sizes = append(sizes, len(b))
	}
	if len(sizes) != 3 || sizes[0] != 13 || sizes[1] != 8 || sizes[2] != 70008 {
		t.Errorf("messages of %v bytes", sizes)
	}
}

func TestSilenceEndsAForwardUnlessMuchWasSent(t *testing.T) {
	for name, test := range map[string]struct {
		sent int
		want bool // bounded
	}{"idle": {0, true}, "a request": {4000, true}, "an upload": {64 << 10, false}} {
		t.Run(name, func(t *testing.T) {
			r := &recorded{gives: true}
			w := &watchedConn{Conn: r}
			_, _ = w.Read(make([]byte, 1))
			r.gives = false
			_, _ = w.Write(frame(test.sent))
			if got := !r.deadline.IsZero(); got != test.want {
				t.Errorf("bounded: %v", got)
			}
			w.unanswered = test.sent
			_, _ = w.Read(make([]byte, 1)) // what was heard counts anew
			_, _ = w.Read(make([]byte, 1))
			if r.deadline.IsZero() {
				t.Error("silence is not bounded once something was heard")
			}
		})
	}
}

func TestAResetIsSeenHoweverTheBytesCome(t *testing.T) {
	in := slices.Concat(frame(5), []byte{0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 5}, frame(0), frame(300),
		[]byte{0x80, 3, 0, 3, 0, 0, 0, 8, 0x80, 0, 0, 9, 0, 0, 0, 5}, []byte{0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 11, 0, 0, 0, 0})
	for size := 1; size <= len(in); size++ {
		w := new(watchedConn)
		for part := range slices.Chunk(in, size) {
			w.parseFrames(part)
		}
		if !w.wasReset(7) || !w.wasReset(9) || w.wasReset(1) || w.wasReset(11) || len(w.head) != 0 || w.skip != 0 {
			t.Errorf("in parts of %d: %v", size, w.resets)
		}
	}
}

// pair returns a forwarded connection and the kubelet's ends of its streams.
func pair(t *testing.T) (f *forwarded, kubelet httpstream.Connection, data httpstream.Stream) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	streams := make(chan httpstream.Stream, 1)
	servers := make(chan httpstream.Connection, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s, err := streamspdy.NewServerConnection(conn, func(s httpstream.Stream, _ <-chan struct{}) error { streams <- s; return nil })
		if err == nil {
			servers <- s
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w := &watchedConn{Conn: conn}
	session, err := streamspdy.NewClientConnectionWithPings(w, forwardPing)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := session.CreateStream(nil)
	if err != nil {
		t.Fatal(err)
	}
	f = &forwarded{at: "pod/api:80", session: session, data: stream, watched: w, failed: make(chan string, 1)}
	t.Cleanup(func() { _ = f.Close() })
	return f, <-servers, <-streams
}

func TestTheEndOfAStreamIsToldFromTheLossOfTheForward(t *testing.T) {
	f, _, data := pair(t)
	_, _ = data.Write([]byte("all"))
	_ = data.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "all" {
		t.Errorf("got %q, %v", b, err)
	}

	f, kubelet, data := pair(t)
	_, _ = data.Write([]byte("half"))
	b := make([]byte, 4)
	if _, err := io.ReadFull(f, b); err != nil {
		t.Fatal(err)
	}
	_ = kubelet.Close()
	if _, err := f.Read(b); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a lost forward reads as the end: %v", err)
	}

	f, _, data = pair(t)
	_ = data.Reset()
	if _, err := f.Read(b); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a reset forward reads as %v", err)
	}

	f, _, _ = pair(t)
	go f.watch(bytes.NewReader([]byte("connection refused\n")))
	if _, err := f.Read(b); err == nil || err.Error() != "pod/api:80: connection refused" {
		t.Errorf("got %v", err)
	}

	f, _, _ = pair(t)
	_ = f.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := f.Read(b); err == nil {
		t.Error("a deadline passed and nothing ended")
	}
}
