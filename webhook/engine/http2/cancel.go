package http2

import "golang.org/x/net/http2"

// pendingResets counts cancelled requests that the backend may still be working on, because it may not have read their
// resets. A client may cancel as many requests as it likes, as calls that exceed their deadlines do. But the backend
// never works on more of them than it may have open streams. Otherwise opening and resetting streams would cause
// unbounded work (CVE-2023-44487). Further requests wait, and cost nothing if they are cancelled meanwhile.
//
// A backend reads in order. So it has read a reset once it responds to a request that was opened later, or acknowledges
// SETTINGS that were sent later. A PING would work too, but gRPC servers close connections that receive many.
type pendingResets struct {
	older, newer    int    // requests that were cancelled before mark, and since
	mark            uint32 // the next stream's ID when newer was reset to zero
	settingsAwaited int    // acknowledgements of SETTINGS up to the one that confirms resets; 0: none is expected
}

func (u *pendingResets) count() int { return u.older + u.newer }

// answered records a response on a stream. It reports whether that confirms resets. While an acknowledgement of
// SETTINGS is awaited, only that counts.
func (u *pendingResets) answered(id, next uint32) bool {
	return u.settingsAwaited == 0 && u.count() > 0 && id >= u.mark && u.confirm(next)
}

// confirm records that the backend has read the resets before mark, and starts to wait for those since.
func (u *pendingResets) confirm(next uint32) bool {
	before := u.count()
	u.older, u.newer, u.mark = u.newer, 0, next
	return u.count() < before
}

// acknowledged records an acknowledgement of SETTINGS. It reports whether that confirms resets.
func (u *pendingResets) acknowledged(next uint32) bool {
	if u.settingsAwaited == 0 {
		return false
	}
	if u.settingsAwaited--; u.settingsAwaited > 0 {
		return false
	}
	return u.confirm(next)
}

// cancelStream resets a stream at a backend that may be working on it.
func (up *upstream) cancelStream(id uint32, code http2.ErrCode) {
	up.rst(id, code)
	up.pendingResets.newer++
	up.mayCancel()
}

// mayCancel reports whether few enough resets are unconfirmed to open another stream, which may then be cancelled too.
// If they are many, it sends SETTINGS, whose acknowledgement confirms them.
func (up *upstream) mayCancel() bool {
	limit := int(min(up.maxStreams, up.r.maxStreams))
	u := &up.pendingResets
	if u.count() >= (limit+1)/2 && u.count() > 0 && u.settingsAwaited == 0 && up.state == sending {
		u.older, u.newer, u.mark = u.count(), 0, up.nextID
		up.writeWindowSetting()
		u.settingsAwaited = up.settingsSent
	}
	return u.count() < max(limit, 1)
}
