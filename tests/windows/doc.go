// Package windows runs the client as Windows' program, in Debian's Wine: on a system
// that is not Linux nothing is missing but mount, which says so.
package windows
