# A stand-in for systemd on a bus of its own: it makes control groups as the real one does, in version 2,
# and writes down what it was asked, one JSON document a line.
#
#   systemd.py ADDRESS LOG TREE

import json
import os
import sys

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

ADDRESS, LOG, TREE = sys.argv[1:]
NAME = "org.freedesktop.systemd1"
MANAGER = NAME + ".Manager"


def plain(value):
    """A value of D-Bus as JSON has it, its type beside it."""
    if isinstance(value, dbus.Boolean):
        return bool(value)
    if isinstance(value, dbus.Byte):
        return int(value)
    if isinstance(value, (dbus.UInt64, dbus.UInt32)):
        return int(value)
    if isinstance(value, dbus.Array):
        return [str(value.signature), [plain(one) for one in value]]
    return str(value)


def note(call, **details):
    with open(LOG, "a") as log:
        log.write(json.dumps({"call": call, **details}) + "\n")


def slice_path(name):
    parts = name.removesuffix(".slice").split("-")
    return "/".join("-".join(parts[: count + 1]) + ".slice" for count in range(len(parts)))


class Refused(dbus.DBusException):
    def __init__(self, name, words):
        super().__init__(words)
        self._dbus_error_name = NAME + "." + name


class Manager(dbus.service.Object):
    def __init__(self, bus):
        super().__init__(bus, "/org/freedesktop/systemd1")
        self.jobs = 0
        self.failed = set()
        self.units = {}

    def job(self, unit, result):
        self.jobs += 1
        path = f"/org/freedesktop/systemd1/job/{self.jobs}"
        number = self.jobs
        # Another one's, first.
        GLib.idle_add(self.JobRemoved, 0, "/org/freedesktop/systemd1/job/0", "other.service", "failed")
        GLib.idle_add(self.JobRemoved, number, path, unit, result)
        return dbus.ObjectPath(path)

    @dbus.service.signal(MANAGER, signature="uoss")
    def JobRemoved(self, number, job, unit, result):
        pass

    @dbus.service.method(MANAGER)
    def Subscribe(self):
        note("Subscribe")

    @dbus.service.method(MANAGER, in_signature="ssa(sv)a(sa(sv))", out_signature="o")
    def StartTransientUnit(self, unit, mode, properties, others):
        values = {str(name): plain(value) for name, value in properties}
        note("StartTransientUnit", unit=str(unit), mode=str(mode), others=len(others), properties=values)
        if "refused" in unit:
            raise Refused("Denied", "not here")
        if "again" in unit and unit not in self.failed:
            self.failed.add(unit)
            raise Refused("UnitExists", f"Unit {unit} was already loaded")
        if "fails" in unit:
            return self.job(unit, "failed")
        group = f"{TREE}/{slice_path(values['Slice'])}/{unit}"
        os.makedirs(group)
        self.units[unit] = group
        for pid in values["PIDs"][1]:
            with open(group + "/cgroup.procs", "w") as processes:
                processes.write(str(pid))
        return self.job(unit, "done")

    @dbus.service.method(MANAGER, in_signature="sba(sv)")
    def SetUnitProperties(self, unit, runtime, properties):
        values = {str(name): plain(value) for name, value in properties}
        note("SetUnitProperties", unit=str(unit), runtime=bool(runtime), properties=values)

    @dbus.service.method(MANAGER, in_signature="ss", out_signature="o")
    def StopUnit(self, unit, mode):
        note("StopUnit", unit=str(unit), mode=str(mode))
        if unit not in self.units:
            raise Refused("NoSuchUnit", f"Unit {unit} not loaded")
        group = self.units.pop(unit)
        # The container's runtime may have been first.
        if os.path.isdir(group):
            os.rmdir(group)
        return self.job(unit, "done")

    @dbus.service.method(MANAGER, in_signature="s")
    def ResetFailedUnit(self, unit):
        note("ResetFailedUnit", unit=str(unit))


dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
connection = dbus.bus.BusConnection(ADDRESS)
manager = Manager(connection)
name = dbus.service.BusName(NAME, connection)
note("ready")
GLib.MainLoop().run()
