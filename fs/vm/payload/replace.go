package payload

import (
	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Replace makes the VM what a payload for Keep says, as a mirror does: what the
// payload lacks goes. The keys that stay keep their ID, mode and place; a value that
// is there already is no change. It does all or nothing; the errors are those of
// Create.
func Replace(e *vm.Edit, payload []byte, st vm.Stamp, lim vm.Limits) error {
	props, sets, err := readPayload(payload, lim)
	if err == nil {
		props, err = keptProps(props, e.Now().Props)
	}
	if err != nil {
		return err
	}
	if uuid := props.Text(vm.PropUUID); uuid != e.Now().UUID {
		return errs.New(errs.Invalid, "uuid: cannot change, it is %s", e.Now().UUID)
	}
	return e.Replace(props, sets, st, lim)
}
