package payload

import (
	"math"
	"strings"

	"meta9/fs/vm"
)

// kind is how the value of a property is taken.
type kind uint8

// The kinds. Of each but anyKind, null and "" unset the property.
const (
	anyKind     kind = iota // as it is
	textKind                // a string
	boolKind                // true, false, 1 and 0, also as text
	integerKind             // a number without a fraction, also as text
	uuidKind                // a UUID as text
	listKind                // an array of strings, numbers and booleans, or text with commas
	flatKind                // an object of strings, numbers and booleans
	objectsKind             // an array of objects
)

// brands is a set of the brands of VMs.
type brands uint8

// The brands, and sets that many properties have in common.
const (
	bhyve brands = 1 << iota
	builder
	joyent
	joyentMinimal
	kvm
	lx

	hvm   = bhyve | kvm
	zones = builder | joyent | joyentMinimal | lx
	all   = hvm | zones
)

// brandNamed finds a brand by its name.
var brandNamed = map[string]brands{
	"bhyve": bhyve, "builder": builder, "joyent": joyent, "joyent-minimal": joyentMinimal, "kvm": kvm, "lx": lx,
}

// property is what vmadm knows of one.
type property struct {
	kind     kind
	create   brands // that take it at create
	update   brands // that take it at update
	required brands // that must have it at create
	min, max int64  // of an integer; a max of 0 is none
	none     bool   // the text "none" is a value, too
}

// properties are vmadm's (smartos-live, 2025: proptable.js and vmadm(8)). The members
// of a list's objects are LIST.*.MEMBER.
var properties = map[string]property{
	"add_disks":                       {kind: objectsKind, update: hvm},
	"add_filesystems":                 {kind: objectsKind, update: zones | kvm},
	"add_nics":                        {kind: objectsKind, update: all},
	"add_pci_devices":                 {kind: objectsKind, create: bhyve, update: bhyve},
	"alias":                           {kind: textKind, create: all, update: all},
	"archive_on_delete":               {kind: boolKind, create: all, update: all},
	"autoboot":                        {kind: boolKind, create: all, update: all},
	"bhyve_extra_opts":                {kind: textKind, create: bhyve, update: bhyve},
	"billing_id":                      {kind: textKind, create: all, update: all},
	"boot":                            {kind: textKind, create: hvm, update: hvm},
	"bootrom":                         {kind: textKind, create: bhyve, update: bhyve},
	"brand":                           {kind: textKind, create: all, required: zones | kvm},
	"com1":                            {kind: textKind, create: bhyve, update: bhyve},
	"com2":                            {kind: textKind, create: bhyve, update: bhyve},
	"cpu_cap":                         {kind: integerKind, create: all, update: all},
	"cpu_shares":                      {kind: integerKind, create: all, update: all},
	"cpu_type":                        {kind: textKind, create: kvm, update: kvm},
	"create_only":                     {kind: boolKind},
	"create_timestamp":                {kind: textKind},
	"customer_metadata":               {kind: flatKind, create: all},
	"dataset_uuid":                    {kind: uuidKind, create: zones},
	"datasets":                        {kind: listKind},
	"delegate_dataset":                {kind: boolKind, create: zones},
	"disk_driver":                     {kind: textKind, create: hvm, update: hvm},
	"disks":                           {kind: objectsKind, create: hvm},
	"disks.*.block_size":              {kind: integerKind},
	"disks.*.boot":                    {kind: boolKind, update: hvm},
	"disks.*.compression":             {kind: textKind, update: hvm},
	"disks.*.dangerous_allow_shrink":  {kind: boolKind, update: bhyve},
	"disks.*.guest_block_size":        {kind: textKind, update: bhyve},
	"disks.*.image_name":              {kind: textKind, update: kvm},
	"disks.*.image_size":              {kind: integerKind},
	"disks.*.image_uuid":              {kind: uuidKind},
	"disks.*.media":                   {kind: textKind, update: hvm},
	"disks.*.model":                   {kind: textKind, update: hvm},
	"disks.*.nocreate":                {kind: boolKind},
	"disks.*.notrim":                  {kind: boolKind, update: bhyve},
	"disks.*.path":                    {kind: textKind, update: hvm},
	"disks.*.pci_slot":                {kind: textKind, update: bhyve},
	"disks.*.refreservation":          {kind: integerKind, update: hvm},
	"disks.*.size":                    {kind: integerKind, update: bhyve},
	"disks.*.uuid":                    {kind: uuidKind, update: bhyve},
	"disks.*.zfs_filesystem":          {kind: textKind},
	"disks.*.zpool":                   {kind: textKind},
	"dns_domain":                      {kind: textKind, create: zones, update: zones},
	"do_not_inventory":                {kind: boolKind, create: all, update: all},
	"docker":                          {kind: boolKind, create: joyentMinimal | lx, update: joyentMinimal | lx},
	"filesystems":                     {kind: objectsKind, create: zones},
	"filesystems.*.options":           {kind: listKind, update: zones},
	"filesystems.*.raw":               {kind: textKind, update: zones},
	"filesystems.*.source":            {kind: textKind, update: zones},
	"filesystems.*.target":            {kind: textKind, update: zones},
	"filesystems.*.type":              {kind: textKind, update: zones},
	"firewall_enabled":                {kind: boolKind, create: all, update: all},
	"flexible_disk_size":              {kind: integerKind, create: bhyve, update: bhyve},
	"fs_allowed":                      {kind: listKind, create: zones, update: zones},
	"hostname":                        {kind: textKind, create: all, update: all},
	"image_uuid":                      {kind: uuidKind, create: all, required: zones},
	"indestructible_delegated":        {kind: boolKind, create: all, update: all},
	"indestructible_zoneroot":         {kind: boolKind, create: all, update: all},
	"init_name":                       {kind: textKind, create: zones, update: zones},
	"internal_metadata":               {kind: flatKind, create: all},
	"internal_metadata_namespaces":    {kind: listKind, create: all, update: all},
	"kernel_version":                  {kind: textKind, create: lx, update: lx, required: lx},
	"limit_priv":                      {kind: listKind, create: all, update: all},
	"maintain_resolvers":              {kind: boolKind, create: zones, update: zones},
	"max_locked_memory":               {kind: integerKind, create: all, update: all},
	"max_lwps":                        {kind: integerKind, create: all, update: all},
	"max_msg_ids":                     {kind: integerKind, create: all, update: all},
	"max_physical_memory":             {kind: integerKind, create: all, update: all},
	"max_sem_ids":                     {kind: integerKind, create: all, update: all},
	"max_shm_ids":                     {kind: integerKind, create: all, update: all},
	"max_shm_memory":                  {kind: integerKind, create: all, update: all},
	"max_swap":                        {kind: integerKind, create: all, update: all, min: 256},
	"mdata_exec_timeout":              {kind: integerKind, create: zones},
	"nic_driver":                      {kind: textKind, create: hvm, update: hvm},
	"nics":                            {kind: objectsKind, create: all},
	"nics.*.allow_dhcp_spoofing":      {kind: boolKind, update: all},
	"nics.*.allow_ip_spoofing":        {kind: boolKind, update: all},
	"nics.*.allow_mac_spoofing":       {kind: boolKind, update: all},
	"nics.*.allow_restricted_traffic": {kind: boolKind, update: all},
	"nics.*.allow_unfiltered_promisc": {kind: boolKind, update: hvm},
	"nics.*.allowed_dhcp_cids":        {kind: listKind, update: zones | kvm},
	"nics.*.allowed_ips":              {kind: listKind, update: all},
	"nics.*.blocked_outgoing_ports":   {kind: listKind, update: all},
	"nics.*.dhcp_server":              {kind: boolKind, update: all},
	"nics.*.gateway":                  {kind: textKind, update: all},
	"nics.*.gateways":                 {kind: listKind, update: all},
	"nics.*.interface":                {kind: textKind, update: all},
	"nics.*.ip":                       {kind: textKind, update: all},
	"nics.*.ips":                      {kind: listKind, update: all},
	"nics.*.mac":                      {kind: textKind, update: all},
	"nics.*.model":                    {kind: textKind, update: hvm},
	"nics.*.mtu":                      {kind: integerKind, update: all, min: 576, max: 9000},
	"nics.*.netmask":                  {kind: textKind, update: all},
	"nics.*.network_uuid":             {kind: uuidKind, update: all},
	"nics.*.nic_tag":                  {kind: textKind, update: all},
	"nics.*.primary":                  {kind: boolKind, update: all},
	"nics.*.vlan_id":                  {kind: integerKind, update: all, max: 4095},
	"nics.*.vrrp_primary_ip":          {kind: textKind, update: all},
	"nics.*.vrrp_vrid":                {kind: integerKind, update: all, max: 255},
	"nowait":                          {kind: boolKind, create: zones},
	"owner_uuid":                      {kind: textKind, create: all, update: all},
	"package_name":                    {kind: textKind, create: zones | kvm, update: zones | kvm},
	"package_version":                 {kind: textKind, create: zones | kvm, update: zones | kvm},
	"pci_devices":                     {kind: objectsKind, create: bhyve, update: bhyve},
	"pci_devices.*.path":              {kind: textKind, update: bhyve},
	"pci_devices.*.pci_slot":          {kind: textKind, update: bhyve},
	"qemu_extra_opts":                 {kind: textKind, create: kvm, update: kvm},
	"qemu_opts":                       {kind: textKind, create: kvm, update: kvm},
	"quota":                           {kind: integerKind, create: all, update: all},
	"ram":                             {kind: integerKind, create: all, update: all},
	"remove_customer_metadata":        {kind: listKind, update: all},
	"remove_disks":                    {kind: listKind, update: hvm},
	"remove_filesystems":              {kind: listKind, update: all},
	"remove_internal_metadata":        {kind: listKind, update: all},
	"remove_nics":                     {kind: listKind, update: all},
	"remove_pci_devices":              {kind: listKind, update: bhyve},
	"remove_routes":                   {kind: listKind, update: all},
	"remove_tags":                     {kind: listKind, update: all},
	"resolvers":                       {kind: listKind, create: all, update: all},
	"restart_init":                    {kind: boolKind, create: zones, update: zones},
	"routes":                          {kind: flatKind, create: all},
	"set_customer_metadata":           {kind: flatKind, update: all},
	"set_internal_metadata":           {kind: flatKind, update: all},
	"set_routes":                      {kind: flatKind, update: all},
	"set_tags":                        {kind: flatKind, update: all},
	"spice_opts":                      {kind: textKind, create: kvm, update: kvm},
	"spice_password":                  {kind: textKind, create: kvm, update: kvm},
	"spice_port":                      {kind: integerKind, create: kvm, update: kvm, min: -1},
	"tags":                            {kind: flatKind, create: all},
	"tmpfs":                           {kind: integerKind, create: zones, update: zones},
	"transition":                      {kind: flatKind},
	"update_disks":                    {kind: objectsKind, update: hvm},
	"update_filesystems":              {kind: objectsKind, update: zones | kvm},
	"update_nics":                     {kind: objectsKind, update: all},
	"update_pci_devices":              {kind: objectsKind, update: bhyve},
	"uuid":                            {kind: uuidKind, create: all},
	"v":                               {kind: integerKind},
	"vcpus":                           {kind: integerKind, create: hvm, update: hvm, min: 1},
	"vga":                             {kind: textKind, create: kvm, update: kvm},
	"virtio_txburst":                  {kind: integerKind, create: kvm, update: kvm},
	"virtio_txtimer":                  {kind: integerKind, create: kvm, update: kvm},
	"vnc_password":                    {kind: textKind, create: hvm, update: hvm},
	"vnc_port":                        {kind: integerKind, create: hvm, update: hvm, min: -1},
	"zfs_data_compression":            {kind: textKind, create: zones, update: zones},
	"zfs_data_recsize":                {kind: integerKind, create: zones, update: zones},
	"zfs_filesystem":                  {kind: textKind},
	"zfs_filesystem_limit":            {kind: integerKind, create: all, update: all, none: true},
	"zfs_io_priority":                 {kind: integerKind, create: all, update: all},
	"zfs_root_compression":            {kind: textKind, create: all, update: all},
	"zfs_root_recsize":                {kind: integerKind, create: all, update: all},
	"zfs_snapshot_limit":              {kind: integerKind, create: all, update: all, none: true},
	"zfs_storage_pool_name":           {kind: textKind, create: zones | kvm},
	"zlog_max_size":                   {kind: integerKind, create: zones, update: zones, max: math.MaxInt64},
	"zone_dataset_uuid":               {kind: uuidKind, create: hvm},
	"zonename":                        {kind: textKind, create: all},
	"zpool":                           {kind: textKind, create: all},
}

// own are the properties that are meta9's. They are taken for every brand.
var own = map[string]property{
	vm.PropUnlinkedAlias:     {kind: textKind},
	vm.PropQMPSocket:         {kind: textKind},
	vm.PropLibvirtState:      {kind: textKind},
	vm.Prop9PChardev:         {kind: textKind},
	vm.Prop9PListen:          {kind: textKind},
	vm.PropMdataChardev:      {kind: textKind},
	vm.PropVsockCID:          {kind: integerKind, min: 3, max: math.MaxUint32 - 1},
	vm.PropVsockUnprivileged: {kind: boolKind},
	vm.PropNoCloudHTTP:       {kind: boolKind},
	vm.Prop9POwner:           {},
	vm.Prop9PUID:             {kind: integerKind, max: vm.MaxID},
	vm.Prop9PGID:             {kind: integerKind, max: vm.MaxID},
	vm.Prop9PMode:            {kind: textKind},
	vm.BinaryMember:          {},
}

// table finds a property by its name; members, that of a list's objects.
var (
	table   = map[string]property{}
	members = map[string]map[string]property{}
)

func init() {
	for name, p := range properties {
		list, member, nested := strings.Cut(name, ".*.")
		switch {
		case !nested:
			table[name] = p
		case members[list] == nil:
			members[list] = map[string]property{member: p}
		default:
			members[list][member] = p
		}
	}
	for name, p := range own {
		p.create, p.update = all, all
		table[name] = p
	}
}
