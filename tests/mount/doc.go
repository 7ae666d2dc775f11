// Package mount tests mounts that lose their transport: guests of package guest
// reach meta9d through a cutter on the host, which breaks the way at random moments
// and in the middle of replies, while programs in the guest (package work) change
// keys and know what must come of each change.
//
// # What a cut is
//
// Over tcp the cutter stands between QEMU's user network and meta9d's listener: a
// cut closes both connections, and the guest's kernel sees its end. On a
// virtio-serial port the same would be the end of QEMU's chardev, which takes QEMU a
// second to connect again, so that 200 of them would take minutes and the link would
// be down for most of it. So there the cutter keeps QEMU's connection and closes
// meta9d's, and makes another: bytes under way are dropped or torn in both
// directions, the guest's port says nothing of it, and what either end wrote on the
// old link is read on the new one. That is what a port sees when meta9d is killed
// and comes back while the guest's processor stands still, or when a guest moves to
// another host, and it is the hardest case, which only the packets' marks can tell.
// A few chardevs are cut for real in between.
//
// A third way, fuse, is tcp for a mount by FUSE: what is tested there is not a guest's
// kernel but the file system in meta9, so that the guest is a container on this machine's
// kernel, which is much faster (package machine).
//
// In either way a third of the cuts closes at once; in a third no more replies pass
// for a moment before that, so that requests are executed and nobody hears of it; in
// a third no more requests do. Beside these cuts, one frame or packet of 40 that
// goes to the guest is torn, of the long ones one of 8: some of its bytes pass, and
// then the link is cut.
package mount
