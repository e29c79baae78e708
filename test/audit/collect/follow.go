package collect

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/audit"
)

const (
	// again is the pause before a log that broke off is read on.
	again = 250 * time.Millisecond
	// lastRead bounds the reading of what is left when the collector stops.
	lastRead = 10 * time.Second
	// maxLine bounds a line, in bytes; the rest of a longer one is dropped.
	maxLine = 1 << 20
)

// A follower reads the log of a container, over its restarts.
type follower struct {
	client kubernetes.Interface
	ledger *audit.Ledger
	source audit.Source
	last   time.Time     // of the last line that was read
	wake   chan struct{} // of capacity 1: the pod's status changed
	ended  chan struct{} // closed: the pod is gone
	once   sync.Once
}

func newFollower(client kubernetes.Interface, ledger *audit.Ledger, source audit.Source, since time.Time) *follower {
	return &follower{client: client, ledger: ledger, source: source, last: since, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// poke has a log that ended looked at again: the container may have been restarted.
func (f *follower) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// end says that the pod is gone. A stream that is open still brings the last lines.
func (f *follower) end() { f.once.Do(func() { close(f.ended) }) }

// run reads until the pod is gone, or ctx ends, and then what is left.
func (f *follower) run(ctx context.Context) {
	for {
		err := f.read(ctx, true)
		switch {
		case ctx.Err() != nil:
			rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRead)
			defer cancel()
			if err := f.read(rest, false); err != nil && !isGone(err) {
				f.ledger.Add(audit.Finding{Source: f.source, Kind: audit.Unread, Time: time.Now(), Text: "the end of its log could not be read: " + err.Error()})
			}
			return
		case apierrors.IsNotFound(err):
			return
		case err == nil || isGone(err): // this run of the container has ended
			select {
			case <-f.wake:
			case <-f.ended:
				return
			case <-ctx.Done():
			}
		}
		select { // not at once again: the API server may be away, or the next run not have begun
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
}

// isGone says whether the pod is gone, or its container has no log now.
func isGone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsBadRequest(err)
}

// read judges the lines after the last one.
func (f *follower) read(ctx context.Context, follow bool) error {
	since := metav1.NewTime(f.last.Truncate(time.Second)) // it travels in seconds
	stream, err := f.client.CoreV1().Pods(f.source.Namespace).GetLogs(f.source.Pod, &corev1.PodLogOptions{
		Container: f.source.Container, Follow: follow, Timestamps: true, SinceTime: &since,
	}).Stream(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	lines := bufio.NewReaderSize(stream, 64<<10)
	for {
		line, err := readLine(lines)
		if stamp, text, ok := strings.Cut(line, " "); ok {
			if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil && at.After(f.last) {
				f.last = at
				if finding, found := audit.Line(f.source, at, text); found {
					f.ledger.Add(finding)
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readLine returns a line without its end, and at the end of the log io.EOF.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if room := maxLine - len(line); room > 0 {
			line = append(line, part[:min(len(part), room)]...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return strings.TrimSuffix(string(line), "\n"), err
		}
	}
}
