#!/bin/busybox sh
# The first process of the guest. `lanes` (LANE=MODULE, separated by commas) and `nobarrier` (names of lanes, each with a
# comma behind it) come from the kernel's command line; a disk has its lane's name for a serial number.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
ifconfig lo 127.0.0.1 up
for disk in /sys/block/vd*; do
  lane=$(cat "$disk/serial")
  device=/dev/${disk##*/}
  if [ "$lane" = system ]; then
    mkdir /system
    mount -t ext4 -o ro "$device" /system
    continue
  fi
  barrier=1
  case ",$nobarrier" in *",$lane,"*) barrier=0 ;; esac
  mkdir -p "/lanes/$lane"
  # No sync but those that are asked for: not by a rename, and not by time.
  mount -t ext4 -o "noauto_da_alloc,commit=300,barrier=$barrier" "$device" "/lanes/$lane" || echo "no file system: $lane"
done
echo 30000 >/proc/sys/vm/dirty_expire_centisecs
for directory in /system/lib*; do ln -s "$directory" "/${directory##*/}"; done
port=$(ls /dev/vport* | head -n 1)
export PATH=/bin:/system/bin UV_THREADPOOL_SIZE=16
# shellcheck disable=SC2046
exec /system/bin/node --enable-source-maps /xosan/main.js "$port" $(echo "$lanes" | tr , ' ')
