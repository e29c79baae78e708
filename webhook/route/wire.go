package route

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// StreamPath is where the control plane serves the route stream: a POST over HTTP/2 whose request and response bodies
// both stay open while the router lives. The request body carries ToControl frames, the response body ToRouter frames,
// one JSON object a line. The request authenticates with "Authorization: Bearer" and a projected token of
// sandbox.Audience, which identifies the pod, its namespace and so its baseline. A replica without the lease responds
// with 307 and the holder's address in Location (the TLS server name stays the configured one), or with 503 if there is
// no holder.
const StreamPath = "/v1/routes"

// MaxFrame is the longest line that either side accepts, in bytes.
const MaxFrame = 16 << 20

// A ToRouter frame has exactly one field set.
type ToRouter struct {
	Snapshot *Table  `json:"snapshot,omitempty"` // first frame; repeated whenever the control plane chooses
	Delta    *Delta  `json:"delta,omitempty"`
	Ping     *Ping   `json:"ping,omitempty"`   // every PingInterval; the table is as fresh as the last frame
	Report   *Report `json:"report,omitempty"` // send Counts at once, with this nonce
	Trust    *Trust  `json:"trust,omitempty"`  // the CA bundle to trust from the next connection on
	Taken    *Taken  `json:"taken,omitempty"`  // final Counts are written to the ConfigMaps
}

// A ToControl frame has exactly one field set.
type ToControl struct {
	Hello  *Hello   `json:"hello,omitempty"` // first frame
	Ack    *Version `json:"ack,omitempty"`   // every request from now on is routed by this table or a newer one
	Counts *Counts  `json:"counts,omitempty"`
}

// Ping keeps an idle stream alive and the table fresh.
type Ping struct{}

// A Report requests counts.
type Report struct {
	Nonce string `json:"nonce"`
}

// Taken acknowledges final Counts: the router may end.
type Taken struct{}

// Trust carries certificates of authorities, PEM.
type Trust struct {
	CA string `json:"ca"`
}

// Hello introduces a router.
type Hello struct {
	Build string  `json:"build"`           // the router's own version
	Start string  `json:"start"`           // random, new whenever the router starts: counts start there
	Have  Version `json:"have,omitzero"`   // the table that it routes by
	CA    string  `json:"ca,omitempty"`    // SHA-256 of the PEM bundle it trusts, hexadecimal
	Dials bool    `json:"dials,omitempty"` // it reports Counts.Dialed
}

// Counts are totals since the router started, by key: for every fork of its table, and every key of Table.Observe, that
// has had requests.
type Counts struct {
	Nonce    string                 `json:"nonce,omitempty"` // of the Report that this answers
	Final    bool                   `json:"final,omitempty"` // the router serves no more requests, and waits for Taken before it ends
	Keys     map[string]Count       `json:"keys,omitempty"`
	Observed map[string]Observation `json:"observed,omitempty"`
	// Dialed is the result of connecting to the ports of forks' pods, by the pod's UID: empty if the router connected,
	// otherwise the error. A frame holds the changes since the stream's last frame; the first holds all. It is part of
	// Counts because a control plane that does not know it yet ignores it there.
	Dialed map[string]string `json:"dialed,omitempty"`
}

// A Count holds the outcomes of the requests of one key at one baseline.
type Count struct {
	Of         string `json:"of,omitempty"`         // in Counts: UID of the fork that had the key
	Fork       uint64 `json:"fork,omitempty"`       // served by the fork
	FellBack   uint64 `json:"fellBack,omitempty"`   // fork not ready, sent to the baseline as configured
	Refused    uint64 `json:"refused,omitempty"`    // answered 503 by the router
	Unfinished uint64 `json:"unfinished,omitempty"` // reached the fork, which broke off before the response was complete; in Fork too if the response had started
}

// Add returns the sum of c and d, without a fork.
func (c Count) Add(d Count) Count {
	return Count{
		Fork: c.Fork + d.Fork, FellBack: c.FellBack + d.FellBack,
		Refused: c.Refused + d.Refused, Unfinished: c.Unfinished + d.Unfinished,
	}
}

// Since returns what c has beyond an earlier count of the same router; false if it is not later, since totals never
// fall.
func (c Count) Since(d Count) (Count, bool) {
	if c.Fork < d.Fork || c.FellBack < d.FellBack || c.Refused < d.Refused || c.Unfinished < d.Unfinished {
		return Count{}, false
	}
	return Count{
		Fork: c.Fork - d.Fork, FellBack: c.FellBack - d.FellBack,
		Refused: c.Refused - d.Refused, Unfinished: c.Unfinished - d.Unfinished,
	}, true
}

// Totals is the content of sandbox.DataCounts: per workload (sandbox.WorkloadLabel), the sum over all its routers.
type Totals map[string]Count

// An Observation holds the outcomes of the requests of one key that passed a workload without a fork for it.
type Observation struct {
	Requests uint64 `json:"requests,omitempty"` // started
	Failed   uint64 `json:"failed,omitempty"`   // of these: the app responded with a failure, broke off, or accepted no connection
	Last     int64  `json:"last,omitempty"`     // when the last one started: milliseconds since 1970, by the router's clock
	// Turn is, in Counts, how often the router had started to observe a key before: counts start at zero each time.
	Turn uint64 `json:"turn,omitempty"`
}

// Add returns the sum of o and p, without a turn.
func (o Observation) Add(p Observation) Observation {
	return Observation{Requests: o.Requests + p.Requests, Failed: o.Failed + p.Failed, Last: max(o.Last, p.Last)}
}

// Since returns what o has beyond an earlier observation of the same router, or all of it if that was of an earlier
// turn; false if it is not later.
func (o Observation) Since(p Observation) (Observation, bool) {
	switch {
	case o.Turn > p.Turn:
		p = Observation{}
	case o.Turn < p.Turn || o.Requests < p.Requests || o.Failed < p.Failed:
		return Observation{}, false
	}
	return Observation{Requests: o.Requests - p.Requests, Failed: o.Failed - p.Failed, Last: o.Last}, true
}

// Observed is the content of sandbox.DataObserved: per key and workload (sandbox.WorkloadLabel), the sum over all its
// routers.
type Observed map[string]map[string]Observation

// Sent holds the outcomes of the requests that a check's router forwarded for the test beside it. It is the termination
// message of that router's container.
type Sent struct {
	Begun      uint64 `json:"begun"`                // all of them; the test may have cancelled some before the response
	Answered   uint64 `json:"answered"`             // by any server, the baseline included
	Refused    uint64 `json:"refused,omitempty"`    // no server accepted them
	Unfinished uint64 `json:"unfinished,omitempty"` // broken off before the response was complete; in Answered too if it had started
	OtherKeys  uint64 `json:"otherKeys,omitempty"`  // those that already carried another key than the sandbox's
}

// Add returns the sum of s and t.
func (s Sent) Add(t Sent) Sent {
	return Sent{
		Begun: s.Begun + t.Begun, Answered: s.Answered + t.Answered, Refused: s.Refused + t.Refused,
		Unfinished: s.Unfinished + t.Unfinished, OtherKeys: s.OtherKeys + t.OtherKeys,
	}
}

// A Reader reads frames.
type Reader struct{ s *bufio.Scanner }

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), MaxFrame)
	return &Reader{s}
}

// ToRouter reads the next frame for a router; io.EOF at the end of the stream. A frame that is malformed or does not
// have exactly one field is an error. After an error the stream cannot be used any more.
func (r *Reader) ToRouter() (*ToRouter, error) {
	var f ToRouter
	if err := r.next(&f); err != nil {
		return nil, err
	}
	switch n := count(f.Snapshot != nil, f.Delta != nil, f.Ping != nil, f.Report != nil, f.Trust != nil, f.Taken != nil); {
	case n != 1:
		return nil, fmt.Errorf("frame has %d fields, must have one", n)
	case f.Snapshot != nil:
		return &f, validate(f.Snapshot.Routes)
	case f.Delta != nil:
		return &f, validate(f.Delta.Set)
	}
	return &f, nil
}

// ToControl reads the next frame for the control plane; the errors are those of ToRouter.
func (r *Reader) ToControl() (*ToControl, error) {
	var f ToControl
	if err := r.next(&f); err != nil {
		return nil, err
	}
	if n := count(f.Hello != nil, f.Ack != nil, f.Counts != nil); n != 1 {
		return nil, fmt.Errorf("frame has %d fields, must have one", n)
	}
	return &f, nil
}

func (r *Reader) next(frame any) error {
	if !r.s.Scan() {
		if err := r.s.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	return json.Unmarshal(r.s.Bytes(), frame)
}

// Write writes one frame, a ToRouter or ToControl.
func Write(w io.Writer, frame any) error {
	b, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	if len(b) >= MaxFrame {
		return errors.New("frame is too long")
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// validate checks what came over the wire before the router dials by it.
func validate(routes map[string]Fork) error {
	for key, fork := range routes {
		for _, pod := range fork.Pods {
			if _, err := netip.ParseAddr(pod.IP); err != nil {
				return fmt.Errorf("route %q: pod %q: %w", key, pod.Name, err)
			}
		}
	}
	return nil
}

func count(set ...bool) int {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}
