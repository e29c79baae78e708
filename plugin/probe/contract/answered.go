package contract

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// answered records what routers report about themselves in the answers of a connection's streams.
type answered struct {
	mu       sync.Mutex
	servedBy map[string]int
	refused  string
}

func (a *answered) intercept(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := streamer(ctx, desc, conn, method, opts...)
	if err != nil {
		return nil, err
	}
	return &watchedStream{ClientStream: s, note: a.note}, nil
}

// watchedStream passes its headers to note, once.
type watchedStream struct {
	grpc.ClientStream
	note func(grpc.ClientStream)
	once sync.Once
}

// RecvMsg receives a message; the headers have arrived by then.
func (s *watchedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.once.Do(func() { s.note(s.ClientStream) })
	return err
}

func (a *answered) note(s grpc.ClientStream) {
	header, err := s.Header()
	if err != nil {
		return
	}
	value := func(name string) string {
		for _, md := range []map[string][]string{header, s.Trailer()} { // an answer without messages may have trailers alone
			if v := md[name]; len(v) > 0 {
				return quoted(v[0])
			}
		}
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.servedBy == nil {
		a.servedBy = map[string]int{}
	}
	if len(a.servedBy) < 50 {
		a.servedBy[value(sandbox.HeaderServedBy)]++
	}
	if why := value(sandbox.HeaderError); why != "" {
		a.refused = why
	}
}

func (a *answered) result() (servedBy map[string]int, refused string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.servedBy, a.refused
}
