package sandbox

import (
	"maps"
	"slices"
	"testing"
)

func TestPorts_SurviveWritingAndReading(t *testing.T) {
	ports := []Port{{"web", 8080}, {"grpc", 9090}}
	s := FormatPorts(ports)
	if s != "grpc=9090,web=8080" {
		t.Fatalf("FormatPorts = %q", s)
	}
	got, err := ParsePorts(s)
	if err != nil || !slices.Equal(got, []Port{{"grpc", 9090}, {"web", 8080}}) {
		t.Errorf("ParsePorts(%q) = %v, %v", s, got, err)
	}
	if got, err := ParsePorts(""); got != nil || err != nil {
		t.Errorf(`ParsePorts("") = %v, %v`, got, err)
	}
}

func TestParsePorts_TakesTwoNamesOfOneNumber(t *testing.T) {
	got, err := ParsePorts("http=80,web=80")
	if err != nil || !slices.Equal(got, []Port{{"http", 80}, {"web", 80}}) {
		t.Errorf("ParsePorts = %v, %v", got, err)
	}
}

func TestParsePorts_RefusesWhatIsNoPort(t *testing.T) {
	for _, bad := range []string{"web", "web=", "=80", "web=0", "web=65536", "web=-1", "web=80,", "Web=80", "8080=80", "a--b=80",
		"-a=80", "averyveryverylong=80", "web=80,web=81", "web=80 "} {
		if got, err := ParsePorts(bad); err == nil {
			t.Errorf("ParsePorts(%q) = %v, want an error", bad, got)
		}
	}
}

func TestCaptures_SurviveWritingAndReading(t *testing.T) {
	captures := []Capture{{Port{"web", 8080}, 15361}, {Port{"grpc", 9090}, 15362}}
	got, err := ParseCaptures(FormatCaptures(captures))
	if err != nil || !slices.Equal(got, captures) {
		t.Errorf("ParseCaptures = %v, %v", got, err)
	}
	for _, bad := range []string{"web=1", "web=1:", "web=:1", "web=0:1", "=1:2", "web=1:2,"} {
		if got, err := ParseCaptures(bad); err == nil {
			t.Errorf("ParseCaptures(%q) = %v, want an error", bad, got)
		}
	}
}

func TestTargetPorts_SurviveWritingAndReading(t *testing.T) {
	want := TargetPorts{PortKey("", 80): {Number: 8080, Name: "web"}, PortKey("TCP", 81): {Number: 81, Name: "x"}}
	got, err := ParseTargetPorts(FormatTargetPorts(want))
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("ParseTargetPorts = %v, %v", got, err)
	}
	if _, err := ParseTargetPorts("{"); err == nil {
		t.Error("ParseTargetPorts took half an object")
	}
}

func FuzzParsePorts(f *testing.F) {
	f.Add("web=8080,grpc=9090")
	f.Fuzz(func(t *testing.T, s string) {
		ports, err := ParsePorts(s)
		if err != nil {
			return
		}
		again, err := ParsePorts(FormatPorts(ports))
		if err != nil || len(again) != len(ports) {
			t.Errorf("ParsePorts(%q) does not survive FormatPorts: %v", s, err)
		}
	})
}
