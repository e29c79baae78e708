package sandbox

import (
	"slices"
	"testing"
)

func TestServices_SurviveWritingAndReading(t *testing.T) {
	services := []Service{{"frontend", 8080}, {"customer.shop", 8081}}
	s := FormatServices(services)
	if s != "frontend:8080,customer.shop:8081" {
		t.Fatalf("FormatServices = %q", s)
	}
	if got, err := ParseServices(s); err != nil || !slices.Equal(got, services) {
		t.Errorf("ParseServices(%q) = %v, %v", s, got, err)
	}
	if got, want := URLEnv("customer.shop-2"), "SANDBOX_URL_CUSTOMER_SHOP_2"; got != want {
		t.Errorf("URLEnv = %q, want %q", got, want)
	}
	if got, err := ParseServices(""); got != nil || err != nil {
		t.Errorf(`ParseServices("") = %v, %v`, got, err)
	}
	for _, bad := range []string{"a", "a:", "a:0", "a:65536", ":80", "a:80,", "-a:80", "A:80", "a..b:80", "a:80,a:81", "a-b:80,a.b:80", "[::1]:80", "a/b:80"} {
		if got, err := ParseServices(bad); err == nil {
			t.Errorf("ParseServices(%q) = %v, want an error", bad, got)
		}
	}
}

func TestForwards_SurviveWritingAndReading(t *testing.T) {
	forwards := []Forward{{Service{"frontend", 8080}, 15358}, {Service{"customer", 8081}, 15357}}
	if got, err := ParseForwards(FormatForwards(forwards)); err != nil || !slices.Equal(got, forwards) {
		t.Errorf("ParseForwards = %v, %v", got, err)
	}
	for _, bad := range []string{"15358", "15358=", "0=a:80", "=a:80", "x=a:80", "15358=a"} {
		if got, err := ParseForwards(bad); err == nil {
			t.Errorf("ParseForwards(%q) = %v, want an error", bad, got)
		}
	}
}

func FuzzParseServices(f *testing.F) {
	f.Add("frontend:8080,customer.shop:8081")
	f.Fuzz(func(t *testing.T, s string) {
		services, err := ParseServices(s)
		if err != nil {
			return
		}
		if again, err := ParseServices(FormatServices(services)); err != nil || !slices.Equal(again, services) {
			t.Errorf("ParseServices(%q) does not survive FormatServices: %v", s, err)
		}
	})
}
