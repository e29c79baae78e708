package sandbox

import "testing"

func TestListen(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ports []Port
		taken []uint16
		want  string
	}{
		{name: "none"},
		{name: "in order of name", ports: []Port{{"http", 8080}, {"grpc", 9090}}, want: "grpc=15361:9090,http=15362:8080"},
		{name: "past declared ports", ports: []Port{{"http", 8080}, {"grpc", 9090}}, taken: []uint16{8080, 9090, 15361, 15363},
			want: "grpc=15362:9090,http=15364:8080"},
		{name: "past the app's own number", ports: []Port{{"http", 15361}}, want: "http=15362:15361"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := FormatCaptures(Listen(tt.ports, tt.taken)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestListen_LeavesOutWhatNumbersRunOutFor(t *testing.T) {
	var taken []uint16
	for n := FirstListenPort; n < 65535; n++ {
		taken = append(taken, uint16(n))
	}
	got := Listen([]Port{{"a", 1}, {"b", 2}}, taken)
	if len(got) != 1 || got[0].Listen != 65535 {
		t.Errorf("got %v, want a alone, on 65535", got)
	}
}
