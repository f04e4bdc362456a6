# The first process of a host: gives it files of its own, runs sshd, and reaps what is left behind.
# usage: host.sh NAME FOLDER "VARIABLE=VALUE ..." [HIDDEN_FILE ...]
set -e
name=$1 keys=$2 variables=$3
shift 3

hostname "$name"
disk=/mnt/$name # in the memory of the machine, and kept while the host is off
test -d "$disk" || new=yes
for folder in root tmp; do
  mkdir -p "$disk/$folder"/{upper,work}
  mount -t overlay overlay /$folder \
    -o "lowerdir=/$folder,upperdir=$disk/$folder/upper,workdir=$disk/$folder/work"
done
chmod 1777 /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
mount -t tmpfs -o size=1g tmpfs /dev/shm
for file in "$@"; do mount --bind /dev/null "$file"; done

if test -n "${new:-}"; then
  rm -rf /root/.ray /root/.ssh /root/.bashrc /root/.profile /root/.bash_profile
  install -d -m 700 /root/.ssh
  install -m 600 "$keys/user.pub" /root/.ssh/authorized_keys
  touch /root/.bashrc # `ray up` sources it
fi

ulimit -n "$(ulimit -Hn)"
/usr/sbin/sshd -f /dev/null -h "$keys/host" -E /dev/stderr -o PidFile=/run/sshd/sshd.pid \
  -o PermitRootLogin=prohibit-password -o MaxStartups=100 ${variables:+-o "SetEnv=$variables"}
while :; do
  sleep 1 &
  wait
done
