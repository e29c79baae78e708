// Package tunnel opens connections to pods through the API server, and finds the pods behind Services.
package tunnel

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
)

// forwardPing is the interval of pings to a forward, and forwardSilence the time that it may take to answer.
const (
	forwardPing    = 750 * time.Millisecond
	forwardSilence = 2 * time.Second
)

// A Forwarder connects to pods through the API server of a client.
type Forwarder struct{ *cluster.Client }

// New returns a Forwarder for the client's cluster.
func New(c *cluster.Client) *Forwarder { return &Forwarder{c} }

// ForwardPod connects to a port on a pod's loopback, through the API server's port-forward: by WebSocket if the API
// server supports it (KEP-4006), else by SPDY, as kubectl does. Each call opens its own connection to the API server,
// because streams on one connection have no flow control: a reader that stops would block all others.
func (c *Forwarder) ForwardPod(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	done := make(chan answer, 1) // client-go's upgrades take no context: one that comes too late is closed
	go func() {
		conn, err := c.forward(namespace, pod, port)
		done <- answer{conn, err}
	}()
	select {
	case a := <-done:
		return a.conn, a.err
	case <-ctx.Done():
		go func() {
			if a := <-done; a.conn != nil {
				_ = a.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func (c *Forwarder) forward(namespace, pod string, port uint16) (net.Conn, error) {
	at := fmt.Sprintf("pod/%s:%d", pod, port)
	session, conn, err := c.upgrade(namespace, pod)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	errors, err := session.CreateStream(headers)
	if err == nil {
		_ = errors.Close() // nothing is sent on it
		headers.Set(corev1.StreamType, corev1.StreamTypeData)
		var data httpstream.Stream
		if data, err = session.CreateStream(headers); err == nil {
			f := &forwarded{at: at, session: session, data: data, watched: conn, failed: make(chan string, 1)}
			go f.watch(errors)
			return f, nil
		}
	}
	_ = session.Close()
	return nil, fmt.Errorf("%s: %w", at, err)
}

// upgrade opens a connection to the API server for the streams of one forward. It also returns the underlying
// connection, if that is known.
func (c *Forwarder) upgrade(namespace, pod string) (httpstream.Connection, *watchedConn, error) {
	url := c.Kube.CoreV1().RESTClient().Post().
		Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	transport, holder, err := websocket.RoundTripperFor(c.Config)
	if err != nil {
		return nil, nil, err
	}
	request, err := http.NewRequest(http.MethodGet, url.String(), nil) //nolint:noctx // the upgrade outlives it
	if err != nil {
		return nil, nil, err
	}
	const tunnelled = "SPDY/3.1+" // k8s.io/apimachinery/pkg/util/portforward: WebsocketsSPDYTunnelingPrefix
	conn, err := websocket.Negotiate(transport, holder, request, tunnelled+portforward.PortForwardProtocolV1Name)
	if err == nil {
		w := &watchedConn{Conn: portforward.NewTunnelingConnection("client", conn)}
		session, err := streamspdy.NewClientConnectionWithPings(w, forwardPing)
		return session, w, err
	}
	if !httpstream.IsUpgradeFailure(err) && !httpstream.IsHTTPSProxyError(err) {
		return nil, nil, err
	}
	plain, upgrader, spdyErr := spdy.RoundTripperFor(c.Config)
	if spdyErr != nil {
		return nil, nil, spdyErr
	}
	dialer := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: plain}, http.MethodPost, url)
	session, _, spdyErr := dialer.Dial(portforward.PortForwardProtocolV1Name)
	return session, nil, spdyErr
}

// forwarded is a connection to a pod's port.
type forwarded struct {
	at      string
	session httpstream.Connection
	data    httpstream.Stream
	watched *watchedConn // carries session; nil where that is SPDY without WebSocket
	failed  chan string  // what the kubelet says went wrong; closed when nothing more is said

	close sync.Once
	timer deadline
}

// watch reads the errors that the kubelet reports, such as that nobody listens on the port.
func (f *forwarded) watch(errors io.Reader) {
	const limit = 1 << 10
	said, _ := io.ReadAll(io.LimitReader(errors, limit))
	if len(said) > 0 {
		f.failed <- strings.TrimSpace(string(said))
		_ = f.data.Reset()
	}
	close(f.failed)
}

// Read distinguishes the end of the app's bytes from the loss of the forward, which spdystream does not.
func (f *forwarded) Read(b []byte) (int, error) {
	n, err := f.data.Read(b)
	if err == nil {
		return n, nil
	}
	select {
	case <-f.session.CloseChan():
		return n, fmt.Errorf("%s: the forward through the API server was lost: %w", f.at, syscall.ECONNRESET)
	default:
	}
	select {
	case said, ok := <-f.failed:
		if ok {
			return n, fmt.Errorf("%s: %s", f.at, said)
		}
	default:
	}
	if f.watched != nil && f.watched.wasReset(f.data.Identifier()) {
		return n, fmt.Errorf("%s: the forward through the API server was reset: %w", f.at, syscall.ECONNRESET)
	}
	return n, err
}

func (f *forwarded) Write(b []byte) (int, error) {
	n, err := f.data.Write(b)
	if err != nil {
		err = fmt.Errorf("%s: %w", f.at, err)
	}
	return n, err
}

// CloseWrite closes the sending half.
func (f *forwarded) CloseWrite() error { return f.data.Close() }

// Close closes both halves, and the connection to the API server.
func (f *forwarded) Close() error {
	f.close.Do(func() {
		f.timer.set(time.Time{}, nil)
		_ = f.data.Reset()
		_ = f.session.Close()
	})
	return nil
}

// SetReadDeadline closes the connection when the deadline has passed: a caller that sets one on a connection to a
// backend gives the connection up then.
func (f *forwarded) SetReadDeadline(t time.Time) error {
	f.timer.set(t, func() { _ = f.data.Reset() })
	return nil
}

func (f *forwarded) SetWriteDeadline(time.Time) error { return nil }

func (f *forwarded) SetDeadline(t time.Time) error { return f.SetReadDeadline(t) }

func (f *forwarded) LocalAddr() net.Addr { return podAddr("forward") }

func (f *forwarded) RemoteAddr() net.Addr { return podAddr(f.at) }

type podAddr string

func (podAddr) Network() string { return "portforward" }

func (a podAddr) String() string { return string(a) }

// deadline runs a function at a time that can be moved or cancelled.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
}

func (d *deadline) set(at time.Time, run func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), run)
	}
}

// watchedConn is a connection that carries SPDY. The other side answers pings, so if it is silent for too long, the
// connection is dead, whatever TCP reports. The exception is a peer that may be busy with much unread data: it reads
// no pings then. watchedConn sends each frame in one message, which spdystream writes in three. It also records which
// streams the other side resets, which spdystream does not report. There is at most one concurrent writer and one
// concurrent reader.
type watchedConn struct {
	net.Conn
	frame []byte // incomplete outgoing frame
	head  []byte // header of the incoming frame
	skip  int    // remaining bytes of that frame

	mu         sync.Mutex
	unanswered int // bytes sent since anything was received
	resets     map[uint32]struct{}
}

const (
	// frameHead is the length of the header of an SPDY/3.1 frame. Its last three bytes are the length of the rest.
	frameHead = 8
	// resetLength is the length of the rest of a RST_STREAM: the stream and a status.
	resetLength = 8
	// typeReset is the type of a RST_STREAM: SPDY/3.1, section 2.6.3.
	typeReset = 3
	// maxUnanswered is more bytes than connections on the way usually buffer. The kubelet accepts frames for an app
	// that does not read until its own buffers are full.
	maxUnanswered = 16 << 10
)

func (w *watchedConn) Write(b []byte) (int, error) {
	w.frame = append(w.frame, b...)
	for len(w.frame) >= frameHead {
		n := frameHead + int(w.frame[5])<<16 + int(w.frame[6])<<8 + int(w.frame[7])
		if len(w.frame) < n {
			break
		}
		w.noteSent(n)
		if _, err := w.Conn.Write(w.frame[:n]); err != nil {
			return 0, err
		}
		w.frame = w.frame[:copy(w.frame, w.frame[n:])]
	}
	return len(b), nil
}

func (w *watchedConn) noteSent(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unanswered += n
	if w.unanswered > maxUnanswered {
		_ = w.SetReadDeadline(time.Time{})
	}
}

func (w *watchedConn) Read(b []byte) (int, error) {
	w.mu.Lock()
	if w.unanswered <= maxUnanswered {
		_ = w.SetReadDeadline(time.Now().Add(forwardSilence))
	}
	w.mu.Unlock()
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unanswered = 0
	w.parseFrames(b[:n])
	return n, err
}

// parseFrames parses the incoming frames and records resets of streams.
func (w *watchedConn) parseFrames(b []byte) {
	for len(b) > 0 {
		if w.skip > 0 {
			n := min(w.skip, len(b))
			w.skip -= n
			b = b[n:]
			continue
		}
		w.head = append(w.head, b[0])
		b = b[1:]
		if len(w.head) < frameHead {
			continue
		}
		length := int(w.head[5])<<16 + int(w.head[6])<<8 + int(w.head[7])
		if length == resetLength && binary.BigEndian.Uint32(w.head)&^(0x7fff<<16) == 1<<31|typeReset {
			if len(w.head) < frameHead+resetLength {
				continue
			}
			if w.resets == nil {
				w.resets = map[uint32]struct{}{}
			}
			w.resets[binary.BigEndian.Uint32(w.head[frameHead:])&^(1<<31)] = struct{}{}
			length = 0
		}
		w.head, w.skip = w.head[:0], length
	}
}

// wasReset reports whether the other side reset a stream. It is known before a reader of the stream sees its end.
func (w *watchedConn) wasReset(stream uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, is := w.resets[stream]
	return is
}
